"""Times of passes, in UTC: an interval or a cron expression, in the notation of a scheduler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import CroniterError, croniter  # type: ignore[import-untyped]

from adapruner.errors import UserError
from pipelines.durations import parse_duration

WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
FIELDS = ("minute", "hour", "day", "month", "weekday")
MINUTE, HOUR, DAY, MONTH, WEEKDAY = range(5)
PORTABLE_ITEM = re.compile(
    r"\d{1,2}|(?:\*|(?P<first>\d{1,2})-(?P<last>\d{1,2}))(?:/\d{1,2})?", re.A
)
"""The syntax that systemd, every cron and Kubernetes read in the same way."""
SINGLE_VALUE_RANGE = re.compile(r"\b0?(\d+)-0?\1\b(?:/\d+)?")
HIGHEST = {"m": 60, "h": 24}
REPEATED = {"m": "*/{} * * * *", "h": "0 */{} * * *"}
ONCE = {"m": "* * * * *", "h": "0 * * * *"}


@dataclass(frozen=True)
class Timetable:
    """A cron expression of five fields, in UTC."""

    cron: str

    @property
    def calendar(self) -> str:
        """The same times as an OnCalendar expression of systemd.

        cron starts when day or weekday matches, systemd when both do: `read` accepts a restriction
        of only one of the two.
        """
        minute, hour, day, month, weekday = self.cron.split()
        days = ",".join(WEEKDAYS[number] for number in _values(weekday, WEEKDAY))
        prefix = "" if weekday == "*" else f"{days} "
        time = f"{_systemd_field(hour, 0)}:{_systemd_field(minute, 0)}:00"
        return f"{prefix}*-{_systemd_field(month, 1)}-{_systemd_field(day, 1)} {time} UTC"

    def is_same_at(self, offset: timedelta) -> bool:
        """Whether the times, read as local times `offset` from UTC, are the same moments."""
        if not offset:
            return True
        minute, *others = self.cron.split()
        if others != ["*"] * 4:
            return False
        minutes = set(_values(minute, MINUTE))
        shift = int(offset.total_seconds()) // 60
        return {(value + shift) % 60 for value in minutes} == minutes


def read(every: str | None, cron: str | None) -> Timetable:
    """The timetable of `--every` or `--cron`, of which exactly one is set. Raises UserError."""
    if (every is None) == (cron is None):
        raise UserError("give one of --every (such as 15m) and --cron (such as '0 3 * * *')")
    return _from_every(every) if every is not None else _from_cron(str(cron))


def interval(text: str) -> timedelta:
    """`90s`, `15m`, `6h` or `1d`. Raises UserError for anything else, and for over 366 days."""
    seconds = parse_duration(text)
    if not seconds:
        raise UserError(f"--every {text!r}: expected a number and s, m, h or d, such as 15m or 6h")
    return timedelta(seconds=seconds)


def next_start(after: datetime, every: timedelta) -> datetime:
    """The first time after `after` that is a multiple of `every` since 1970, in UTC.

    Starts stay on this grid however long a pass takes; missed starts are left out.
    """
    seconds = every.total_seconds()
    return datetime.fromtimestamp((after.timestamp() // seconds + 1) * seconds, UTC)


def _from_every(text: str) -> Timetable:
    interval(text)
    number, unit = int(text[:-1]), text[-1]
    if text in ("1d", "24h"):
        return Timetable("0 0 * * *")
    if text == "60m":
        number, unit = 1, "h"
    highest = HIGHEST.get(unit, 0)
    if number >= highest or highest % number:
        raise UserError(
            f"--every {text!r}: a schedule repeats by the hour or by the day, so expected minutes "
            "that divide an hour (5m, 15m), hours that divide a day (1h, 6h) or 1d; "
            "for other times give --cron"
        )
    return Timetable(ONCE[unit] if number == 1 else REPEATED[unit].format(number))


def _from_cron(text: str) -> Timetable:
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise UserError(
            f"--cron {text!r}: expected five fields, minute hour day month weekday, such as "
            "'0 3 * * 1-5' for 03:00 UTC on workdays"
        )
    for index, field in enumerate(fields):
        low, high = croniter.RANGES[index]
        if not _is_valid(field, index):
            raise UserError(
                f"--cron {text!r}: the {FIELDS[index]} {field!r} is not numbers from {low} to "
                f"{high}, as *, 5, 1-5, */15 or a list of these"
            )
    if fields[DAY] != "*" and fields[WEEKDAY] != "*":
        raise UserError(
            f"--cron {text!r}: give a day or a weekday, not both: schedulers read it differently"
        )
    timetable = Timetable(" ".join(fields))
    try:
        croniter(timetable.cron, datetime.now(UTC)).get_next()
    except CroniterError:
        raise UserError(f"--cron {text!r}: there is no such day in any of the months") from None
    return timetable


def _is_valid(field: str, index: int) -> bool:
    """Whether a field is valid for croniter and is portable: croniter accepts more than others."""
    try:
        _values(field, index)
    except CroniterError:
        return False
    matches = [PORTABLE_ITEM.fullmatch(item) for item in field.split(",")]
    highest = croniter.RANGES[index][1]
    return all(int(number) <= highest for number in re.findall(r"[0-9]+", field)) and all(
        match is not None and int(match["first"] or 0) <= int(match["last"] or 0)
        for match in matches
    )


def _values(field: str, index: int) -> list[int]:
    """The numbers of one field, in ascending order. Raises CroniterError for an invalid field."""
    fields = ["*"] * len(FIELDS)
    # croniter expands a range of one value, such as 5-5, as if it were *.
    fields[index] = SINGLE_VALUE_RANGE.sub(r"\1", field)
    values = croniter.expand(" ".join(fields))[0][index]
    low, high = croniter.RANGES[index]
    return [*range(low, high + 1)] if "*" in values else values


def _systemd_field(field: str, low: int) -> str:
    """One field: a step counts from the lowest value, a range has two dots."""
    if field == "*":
        return "*"
    items = (item.replace("*", str(low)).replace("-", "..") for item in field.split(","))
    return ",".join(items)
