"""Webhook requests about promotions and failures. A failed request never stops a pass."""

from __future__ import annotations

import os
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
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    details = [str(event[k]) for k in ("source", "version", "target", "reason") if event.get(k)]
    summary = ": ".join([f"AdaPruner {event['event']}", *([" ".join(details)] if details else [])])
    try:
        template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(body)
        return template.render({**dict.fromkeys(FIELDS, ""), **event, "summary": summary})
    except (TemplateError, TypeError) as error:
        raise ValueError(f"not a usable Jinja2 template: {error}") from None


def send(event: Mapping[str, Any], body: str, url_env: str, timeout: float) -> str | None:
    """Posts an event to the URL in the environment variable `url_env`; `timeout` is in seconds.

    Returns why it failed, or None. The reason never contains the URL, whose path is often a secret.
    """
    url = os.environ.get(url_env, "")
    if urlsplit(url).scheme not in ("http", "https"):
        return f"the environment variable {url_env} holds no http(s) URL"
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
