"""Authentication of webhook requests from MLflow's registry.

MLflow (webhooks/delivery.py, version 3.17) signs `ID.TIMESTAMP.BODY` with HMAC-SHA256 and the
webhook's secret; the signature header is `v1,` and the Base64 of the signature. A repeated delivery
keeps its ID and its timestamp.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

SIGNATURE = "x-mlflow-signature"
TIMESTAMP = "x-mlflow-timestamp"
DELIVERY = "x-mlflow-delivery-id"
TOLERANCE_SECONDS = 300
MOST_DELIVERIES = 10_000
EVENTS = {
    ("model_version", "created"),
    ("model_version_alias", "created"),
    ("model_version_alias", "deleted"),
}
"""Entity and action of the events that start a pass. Not tags: passes write tags themselves."""


class RefusedError(Exception):
    """A refused request: HTTP status, and a reason that may be logged and sent back."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def signature(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The value of the signature header."""
    signed = f"{delivery}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def check_signature(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The ID of the delivery, if its signature and its timestamp are valid; else RefusedError.

    `now` is in seconds since 1970. The comparison of signatures takes constant time.
    """
    delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", delivery, re.A):
        raise RefusedError(400, "no usable delivery ID")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp, re.A):
        raise RefusedError(400, "no usable timestamp")
    expected = signature(secret, delivery, timestamp, body)
    received = headers.get(SIGNATURE, "")
    if not hmac.compare_digest(expected.encode(), received.encode("utf-8", "replace")):
        raise RefusedError(401, "the signature is missing or wrong")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise RefusedError(401, "the timestamp is too old or ahead of this clock")
    return delivery


def event_of(body: bytes) -> tuple[str, str, str]:
    """Entity, action and model name of a signed body. Raises RefusedError for any other JSON."""
    try:
        values = json.loads(body)
        entity, action, data = values["entity"], values["action"], values["data"]
        name = data.get("name", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RefusedError(400, "the body is not an event of MLflow") from None
    if not all(isinstance(value, str) for value in (entity, action, name)):
        raise RefusedError(400, "the body is not an event of MLflow")
    return entity, action, name


class Deliveries:
    """The IDs of accepted deliveries, in a file that outlives a restart of the service.

    An ID is kept as long as its timestamp is valid, so their number is bounded. Only IDs with a
    valid signature are added.
    """

    def __init__(self, file: Path, most: int = MOST_DELIVERIES) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None, timeout=5)
        self._most = most
        self._execute("CREATE TABLE IF NOT EXISTS deliveries (id TEXT PRIMARY KEY, until REAL)")

    def add(self, delivery: str, now: float) -> None:
        """Stores an ID. Raises RefusedError for a repeated one, and when there are too many."""
        self._execute("DELETE FROM deliveries WHERE until < ?", now)
        if self._execute("SELECT 1 FROM deliveries WHERE id = ?", delivery):
            raise RefusedError(409, "repeated delivery")
        if self._execute("SELECT count(*) FROM deliveries")[0][0] >= self._most:
            raise RefusedError(503, "too many deliveries in a short time")
        # A timestamp may be ahead of this clock, and is then valid for twice as long.
        until = now + 2 * TOLERANCE_SECONDS + 1
        try:
            self._execute("INSERT INTO deliveries VALUES (?, ?)", delivery, until)
        except sqlite3.IntegrityError:
            raise RefusedError(409, "repeated delivery") from None

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        with closing(self._connection.cursor()) as cursor:
            return cursor.execute(statement, values).fetchall()
