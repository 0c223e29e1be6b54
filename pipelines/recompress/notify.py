"""A webhook for those who want to hear of promotions and failures. It never stops the work."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pipelines.recompress.config import Notify

KINDS = {"promoted": "promotion", "failed": "failure", "gave_up": "failure", "changed": "failure"}
"""Event -> the word of `notify.events` that asks for it."""
FIELDS = frozenset(
    "time event source version target reason attempt until was now refused decision gate metric "  # noqa: SIM905
    "value champion champion_value improvement".split()
)


def render(body: str, event: Mapping[str, Any]) -> str:
    """The request's body for an event. Raises ValueError for a template that can't be used.

    A field of `FIELDS` that the event lacks is empty; any other name is a mistake.
    """
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    about = [str(event[key]) for key in ("source", "version", "target", "reason") if event.get(key)]
    summary = ": ".join([f"AdaPruner {event['event']}", *([" ".join(about)] if about else [])])
    try:
        template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(body)
        return template.render({**dict.fromkeys(FIELDS, ""), **event, "summary": summary})
    except (TemplateError, TypeError) as error:
        raise ValueError(f"not a usable Jinja2 template: {error}") from None


def notify(settings: Notify | None, event: Mapping[str, Any]) -> str | None:
    """Send the event where it was asked for; why it could not be sent, or None.

    The answer never quotes the URL: its path is often the secret.
    """
    if settings is None or KINDS.get(event["event"]) not in settings.events:
        return None
    url = os.environ.get(settings.url_env, "")
    if urlsplit(url).scheme not in ("http", "https"):
        return f"the environment variable {settings.url_env} holds no http(s) URL"
    try:
        request = urllib.request.Request(
            url,
            data=render(settings.body, event).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "adapruner"},
        )
        urllib.request.urlopen(request, timeout=settings.timeout).close()
    except urllib.error.HTTPError as error:
        return f"the webhook answered {error.code}"
    except Exception as error:
        return f"the webhook can't be reached ({type(error).__name__})"
    return None
