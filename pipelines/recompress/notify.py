"""Webhook requests about promotions and failures. A failed request never stops a pass."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

KINDS = {"promoted": "promotion", "failed": "failure", "gave_up": "failure", "changed": "failure"}
"""Event -> the entry of the setting `notify.events` that selects it."""
FIELDS = frozenset({
    "time", "event", "source", "version", "target", "reason", "attempt", "until", "was", "now",
    "refused", "decision", "gate", "metric", "value", "champion", "champion_value", "improvement",
})  # fmt: skip
"""The fields that a template may use."""


def render(body: str, event: Mapping[str, Any]) -> str:
    """The body of the request for an event. Raises ValueError for an invalid template.

    A field of `FIELDS` that the event does not have is empty; any other name is invalid.
    """
    details = [str(event[k]) for k in ("source", "version", "target", "reason") if event.get(k)]
    summary = ": ".join([f"AdaPruner {event['event']}", *([" ".join(details)] if details else [])])
    fields = {**dict.fromkeys(FIELDS, ""), **event, "summary": summary}
    try:
        return str(_sandbox().from_string(body).render(fields))
    except Exception as error:  # a template can raise what its expressions raise, such as 1 / 0
        raise ValueError(f"not a usable Jinja2 template: {error}") from None


def _sandbox() -> Any:
    """An environment whose expressions can't make a long text of a short one."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not all(isinstance(v, float | int) for v in (left, right)):
                raise ValueError(f"'{operator}' is not supported here")
            return left * right

    return Sandbox(undefined=StrictUndefined)


def send(event: Mapping[str, Any], body: str, url_env: str, timeout: float) -> str | None:
    """Posts an event to the URL in the environment variable `url_env`; `timeout` is in seconds.

    Returns why it failed, or None. The reason never contains the URL, whose path is often a secret.
    """
    url = os.environ.get(url_env, "")
    if not _is_http(url):
        return f"the environment variable {url_env} holds no http(s) URL"
    problems: list[str | None] = []
    # The time limit of urllib is one of each read: a server that drips bytes outlives it.
    thread = threading.Thread(
        target=lambda: problems.append(_post(url, body, event, timeout)), daemon=True
    )
    thread.start()
    thread.join(timeout)
    return problems[0] if problems else f"the webhook did not answer within {timeout:g} s"


def _is_http(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False


def _post(url: str, body: str, event: Mapping[str, Any], timeout: float) -> str | None:
    try:
        request = urllib.request.Request(
            url,
            data=render(body, event).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "adapruner"},
        )
        urllib.request.urlopen(request, timeout=timeout).close()
    except urllib.error.HTTPError as error:
        return f"the webhook answered {error.code}"
    except Exception as error:
        return f"the webhook can't be reached ({type(error).__name__})"
    return None
