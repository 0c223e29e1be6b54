"""What a webhook of MLflow's registry must bring along to be believed.

MLflow (webhooks/delivery.py, version 3.17) signs `ID.TIMESTAMP.BODY` with HMAC-SHA256 and the
webhook's secret; the signature header is `v1,` and the Base64 of it. A delivery that MLflow
tries again keeps its ID and its timestamp.
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
# Tags are not among them: passes write tags, and would start each other.
EVENTS = {
    ("model_version", "created"),
    ("model_version_alias", "created"),
    ("model_version_alias", "deleted"),
}


class RefusedError(Exception):
    """A request that is not believed: a status and a reason that may be logged and sent back."""

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
    """The delivery's ID, once signature and time (`now`, in seconds since 1970) are right.

    Raises RefusedError. The comparison takes the same time wherever the signatures differ.
    """
    delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", delivery, re.A):
        raise RefusedError(400, "no usable delivery ID")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp, re.A):
        raise RefusedError(400, "no usable timestamp")
    expected = signature(secret, delivery, timestamp, body)
    given = headers.get(SIGNATURE, "")
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
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
    """Delivery IDs that were taken, in a file: a restarted service still knows them.

    An ID is kept as long as its timestamp could pass, so what is kept has a bound. Only signed
    IDs get here.
    """

    def __init__(self, file: Path, most: int = MOST_DELIVERIES) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None, timeout=5)
        self._most = most
        self._execute("CREATE TABLE IF NOT EXISTS deliveries (id TEXT PRIMARY KEY, until REAL)")

    def take(self, delivery: str, now: float) -> None:
        """Remember an ID. Raises RefusedError for a known one, and where there are too many."""
        self._execute("DELETE FROM deliveries WHERE until < ?", now)
        if self._execute("SELECT 1 FROM deliveries WHERE id = ?", delivery):
            raise RefusedError(409, "this delivery was taken before")
        if self._execute("SELECT count(*) FROM deliveries")[0][0] >= self._most:
            raise RefusedError(503, "too many deliveries in a short time")
        # A timestamp may lie ahead of this clock, and then pass for twice as long.
        until = now + 2 * TOLERANCE_SECONDS + 1
        try:
            self._execute("INSERT INTO deliveries VALUES (?, ?)", delivery, until)
        except sqlite3.IntegrityError:
            raise RefusedError(409, "this delivery was taken before") from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        with closing(self._connection.cursor()) as cursor:
            return cursor.execute(statement, values).fetchall()
