"""Durations as text: a number and its unit, such as 90s, 30m, 12h or 7d."""

from __future__ import annotations

import re

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Unit -> its seconds."""
MAX_SECONDS = 366 * UNITS["d"]
DURATION = re.compile(r"(0|[1-9]\d{0,7})([smhd])", re.A)


def parse_duration(text: str) -> int | None:
    """The seconds of a duration; None for anything else, and for over 366 days."""
    match = DURATION.fullmatch(text)
    seconds = int(match[1]) * UNITS[match[2]] if match else None
    return None if seconds is None or seconds > MAX_SECONDS else seconds
