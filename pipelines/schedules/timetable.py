"""When passes start, in UTC: an interval or a cron expression, in the words of each scheduler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.errors import mistake

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Name, lowest and highest value of each field of a cron expression.
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
ITEM = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?", re.A)
EVERY = {"m": (60, "*/{} * * * *", "* * * * *"), "h": (24, "0 */{} * * *", "0 * * * *")}


@dataclass(frozen=True)
class Timetable:
    """A cron expression of five fields, in UTC."""

    cron: str

    @property
    def calendar(self) -> str:
        """The same as an OnCalendar expression of systemd.

        Days and weekdays are told apart by cron ("either"), by systemd not ("both"): `read` lets
        only one of the two be restricted.
        """
        minute, hour, day, month, weekday = self.cron.split()
        chosen = sorted(set(_values(weekday, 0, 6)))
        days = "" if weekday == "*" else ",".join(WEEKDAYS[n] for n in chosen) + " "
        time = f"{_systemd(hour, 0)}:{_systemd(minute, 0)}:00"
        return f"{days}*-{_systemd(month, 1)}-{_systemd(day, 1)} {time} UTC"

    def is_the_same_at(self, offset: timedelta) -> bool:
        """Whether the starts, read as local time `offset` from UTC, are the same moments."""
        if not offset:
            return True
        minute, *others = self.cron.split()
        if others != ["*"] * 4:
            return False
        chosen = set(_values(minute, 0, 59))
        shift = int(offset.total_seconds()) // 60
        return {(m + shift) % 60 for m in chosen} == chosen


def read(every: str | None, cron: str | None) -> Timetable:
    """The timetable of `--every` or `--cron`, of which one is given. Raises UserError."""
    if (every is None) == (cron is None):
        raise mistake("give one of --every (such as 15m) and --cron (such as '0 3 * * *')")
    return _from_every(every) if every is not None else _from_cron(str(cron))


def interval(text: str) -> timedelta:
    """`90s`, `15m`, `6h` or `1d`. Raises UserError for anything else, and for over 366 days."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= 366 * UNITS["d"]:
        raise mistake(f"--every {text!r}: wanted a number and s, m, h or d, such as 15m or 6h")
    return timedelta(seconds=seconds)


def next_start(after: datetime, every: timedelta) -> datetime:
    """The first moment after `after` that is a multiple of `every` from 1970 on, in UTC.

    Starts stay on this grid however long a pass takes: what was missed is left out.
    """
    seconds = every.total_seconds()
    return datetime.fromtimestamp((after.timestamp() // seconds + 1) * seconds, UTC)


def _from_every(text: str) -> Timetable:
    interval(text)
    number, unit = int(text[:-1]), text[-1]
    if text == "1d" or text == "24h":
        return Timetable("0 0 * * *")
    if text in ("60m", "1h"):
        return Timetable(EVERY["h"][2])
    size, several, each = EVERY.get(unit, (0, "", ""))
    if not size or number >= size or size % number:
        raise mistake(
            f"--every {text!r}: a schedule repeats by the hour or by the day, so wanted minutes "
            "that divide an hour (5m, 15m), hours that divide a day (1h, 6h) or 1d; "
            "for other times give --cron"
        )
    return Timetable(each if number == 1 else several.format(number))


def _from_cron(text: str) -> Timetable:
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise mistake(
            f"--cron {text!r}: wanted five fields, minute hour day month weekday, such as "
            "'0 3 * * 1-5' for 03:00 UTC on workdays"
        )
    for field, (name, low, high) in zip(fields, FIELDS, strict=True):
        if not all(_is_item(item, low, high) for item in field.split(",")):
            raise mistake(
                f"--cron {text!r}: the {name} {field!r} is not numbers from {low} to {high}, as "
                "*, 5, 1-5, */15 or a list of these"
            )
    if fields[2] != "*" and fields[4] != "*":
        raise mistake(
            f"--cron {text!r}: give a day or a weekday, not both: schedulers read it differently"
        )
    return Timetable(" ".join(fields))


def _is_item(item: str, low: int, high: int) -> bool:
    found = ITEM.fullmatch(item)
    if found is None:
        return False
    first, last, step = (int(part) if part else None for part in found.groups())
    if step is not None and (not 0 < step <= high or (first is not None and last is None)):
        return False
    first = low if first is None else first
    return low <= first <= (high if last is None else last) <= high


def _values(field: str, low: int, high: int) -> Iterator[int]:
    """The numbers that a field stands for."""
    for item in field.split(","):
        found = ITEM.fullmatch(item)
        assert found is not None
        first = int(found[1]) if found[1] else low
        last = int(found[2] or found[1]) if found[1] else high
        yield from range(first, last + 1, int(found[3] or 1))


def _systemd(field: str, low: int) -> str:
    """One field: a step counts from the lowest value, a range has two dots."""
    if field == "*":
        return "*"
    items = (item.replace("*", str(low)).replace("-", "..") for item in field.split(","))
    return ",".join(items)
