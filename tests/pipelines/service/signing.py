"""Signed requests, as MLflow sends them."""

from __future__ import annotations

import json
import time

from pipelines.service import webhooks
from pipelines.service.webhooks import signature

SECRET = "a-secret-of-some-length"
BODY = json.dumps(
    {"entity": "model_version", "action": "created", "data": {"name": "mine", "version": "1"}}
).encode()


def signed(delivery: str, body: bytes, timestamp: int | None = None) -> dict[str, str]:
    """The headers of a delivery; `timestamp` is in seconds since 1970, by default now."""
    text = str(int(time.time()) if timestamp is None else timestamp)
    return {
        webhooks.DELIVERY: delivery,
        webhooks.TIMESTAMP: text,
        webhooks.SIGNATURE: signature(SECRET, delivery, text, body),
    }
