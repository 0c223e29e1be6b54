from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from croniter import croniter

from adapruner.errors import UserError
from pipelines.schedules import timetable

GOOD = [
    ("15m", None, "*/15 * * * *", "*-*-* *:0/15:00 UTC"),
    ("1m", None, "* * * * *", "*-*-* *:*:00 UTC"),
    ("1h", None, "0 * * * *", "*-*-* *:0:00 UTC"),
    ("60m", None, "0 * * * *", "*-*-* *:0:00 UTC"),
    ("6h", None, "0 */6 * * *", "*-*-* 0/6:0:00 UTC"),
    ("1d", None, "0 0 * * *", "*-*-* 0:0:00 UTC"),
    (None, "0 3 * * 1-5", "0 3 * * 1-5", "Mon,Tue,Wed,Thu,Fri *-*-* 3:0:00 UTC"),
    (None, " 5  4 1-15/3 * *", "5 4 1-15/3 * *", "*-*-1..15/3 4:5:00 UTC"),
    (None, "*/20 1-5,8 * */2 *", "*/20 1-5,8 * */2 *", "*-1/2-* 1..5,8:0/20:00 UTC"),
    (None, "0 0 * * 0,*/3", "0 0 * * 0,*/3", "Sun,Wed,Sat *-*-* 0:0:00 UTC"),
    (None, "0 3 * * 1,*", "0 3 * * 1,*", "Sun,Mon,Tue,Wed,Thu,Fri,Sat *-*-* 3:0:00 UTC"),
]


@pytest.mark.parametrize(("every", "cron", "as_cron", "as_calendar"), GOOD)
def test_times_have_a_cron_expression_and_a_systemd_calendar(
    every: str | None, cron: str | None, as_cron: str, as_calendar: str
) -> None:
    read = timetable.read(every, cron)
    assert (read.cron, read.calendar) == (as_cron, as_calendar)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("text", [row[2] for row in GOOD])
def test_systemd_starts_at_the_times_of_cron(text: str) -> None:
    after = datetime(2030, 1, 31, 23, 59, 30, tzinfo=UTC)
    calendar = timetable.read(None, text).calendar
    shown = subprocess.run(
        [
            "systemd-analyze",
            "calendar",
            "--iterations=5",
            f"--base-time={after:%F %T} UTC",
            calendar,
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC", "LC_ALL": "C"},
    ).stdout
    # Each start is a line "LABEL: Fri 2030-02-01 00:00:00 UTC".
    words = [line.split() for line in shown.splitlines() if line.endswith(" UTC") and "-" in line]
    starts = [" ".join(row[-3:-1]) for row in words if row[-3].count("-") == 2]
    expected = croniter(text, after)
    wanted = [f"{expected.get_next(datetime):%Y-%m-%d %H:%M:%S}" for _ in range(5)]
    assert [start for start in starts if not start.startswith("*")] == wanted


@pytest.mark.parametrize(
    ("written", "same"), [("5-5", "5"), ("05-5/2", "5"), ("1-1,3", "1,3"), ("1,*", "*")]
)
def test_a_range_of_one_value_and_a_list_with_a_star_keep_their_meaning(
    written: str, same: str
) -> None:
    """croniter expands 5-5 as if it were *."""
    half_an_hour = timedelta(minutes=30)
    for form in ("{} * * * *", "0 3 * * {}"):
        first, second = (timetable.read(None, form.format(field)) for field in (written, same))
        assert first.is_same_at(half_an_hour) == second.is_same_at(half_an_hour)
    days = [timetable.read(None, f"0 3 * * {field},6").calendar for field in (written, same)]
    assert days[0] == days[1]


@pytest.mark.parametrize(
    ("every", "cron"),
    [
        (None, None),
        ("15m", "* * * * *"),
        ("7m", None),
        ("90s", None),
        ("5h", None),
        ("2d", None),
        ("15m; rm x", None),
        (None, "* * * *"),
        (None, "60 * * * *"),
        (None, "* 24 * * *"),
        (None, "* * 0 * *"),
        (None, "* * * * 7"),
        (None, "* * * * */7"),
        (None, "*/60 * * * *"),
        (None, "0 0 L * *"),
        (None, "0 0 * * 1#2"),
        (None, "1, * * * *"),
        (None, "٣ * * * *"),
        (None, "* * * * mon"),
        (None, "5-1 * * * *"),
        (None, "*/0 * * * *"),
        (None, "5/5 * * * *"),
        (None, "0 0 1 * 1"),
        (None, "@daily"),
        (None, "0 0 * * * && x"),
        (None, "0 0 31 2 *"),
        (None, "0 0 31 4,6,9,11 *"),
    ],
)
def test_times_that_schedulers_read_differently_are_refused(
    every: str | None, cron: str | None
) -> None:
    with pytest.raises(UserError, match=r"--every|--cron") as caught:
        timetable.read(every, cron)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cron", "hours", "same"),
    [
        ("0 3 * * *", 0, True),
        ("0 3 * * *", 1, False),
        ("*/15 * * * *", -5, True),
        ("*/15 * * * *", 5.75, True),
        ("*/20 * * * *", 5.5, False),
        ("0 */6 * * *", 6, False),
    ],
)
def test_times_may_be_the_same_in_another_time_zone(cron: str, hours: float, same: bool) -> None:
    assert timetable.Timetable(cron).is_same_at(timedelta(hours=hours)) == same


def test_the_next_start_is_in_utc_and_leaves_out_missed_ones() -> None:
    quarter = timedelta(minutes=15)
    at = datetime(2030, 1, 1, 12, 14, 59, tzinfo=UTC)
    assert timetable.next_start(at, quarter) == datetime(2030, 1, 1, 12, 15, tzinfo=UTC)
    on_time = datetime(2030, 1, 1, 12, 15, tzinfo=UTC)
    assert timetable.next_start(on_time, quarter) == on_time + quarter
    late = datetime(2030, 1, 1, 13, 7, tzinfo=UTC)
    assert timetable.next_start(late, quarter) == datetime(2030, 1, 1, 13, 15, tzinfo=UTC)
    india = datetime.fromisoformat("2030-01-01T18:00:00+05:30")
    assert timetable.next_start(india, timedelta(days=1)) == datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "15", "m", "0m", "-5m", "1.5h", "15 m", "400d", "٣m"])
def test_an_invalid_interval_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a number and s, m, h or d"):
        timetable.interval(text)
