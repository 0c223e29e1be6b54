from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipelines.log import EventLog, utc_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_json_line_with_the_time_in_utc_first() -> None:
    stream = io.StringIO()
    written = EventLog(stream).emit("failed", reason='a "quoted" one', until=None)
    (content,) = lines(stream)
    assert content == written
    assert list(content) == ["time", "event", "reason"]
    assert datetime.fromisoformat(str(content["time"])).utcoffset() == timedelta(0)


def test_all_times_have_one_format() -> None:
    moment = datetime(2030, 1, 31, 7, 30, tzinfo=timezone(timedelta(hours=1, minutes=30)))
    assert utc_text(moment) == "2030-01-31T06:00:00.000Z"
    stream = io.StringIO()
    EventLog(stream).emit("waiting", next_start=moment)
    (content,) = lines(stream)
    assert content["next_start"] == utc_text(moment)
    assert len(str(content["time"])) == len(utc_text(moment))


def test_events_in_a_context_have_its_fields() -> None:
    stream = io.StringIO()
    log = EventLog(stream)
    with log.context(source="m", version="3"):
        log.emit("started")
    log.emit("finished")
    first, last = lines(stream)
    assert (first["source"], first["version"]) == ("m", "3")
    assert "source" not in last


def test_zenml_messages_about_steps_and_warnings_of_the_project_become_events() -> None:
    stream = io.StringIO()
    handlers = logging.getLogger().handlers
    with EventLog(stream).capture_logging():
        zenml = logging.getLogger("zenml.step")
        zenml.setLevel(logging.INFO)
        zenml.info("Step `prune` has started.")
        zenml.info("Step `prune` has finished in 1.2s.")
        zenml.info("Using cached version of step `search`.")
        zenml.info("Dashboard URL for Pipeline Run: none")
        logging.getLogger("steps.register").warning("the gate failed")
        logging.getLogger("mlflow").warning("not about this project")
    assert logging.getLogger().handlers == handlers
    steps = [(line["step"], line["state"]) for line in lines(stream) if line["event"] == "step"]
    assert steps == [("prune", "started"), ("prune", "finished"), ("search", "cached")]
    assert [x["reason"] for x in lines(stream) if x["event"] == "warning"] == ["the gate failed"]


def test_other_output_goes_to_standard_error_unless_the_log_is_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for stream in (io.StringIO(), Terminal()):
        with EventLog(stream).redirect_other_output():
            print("from a library")
    assert capsys.readouterr() == ("from a library\n", "from a library\n")


def test_a_terminal_shows_lines_and_a_table_with_each_outcome() -> None:
    stream = Terminal()
    log = EventLog(stream)
    for version in ("1", "2"):
        with log.context(source="m", version=version):
            log.emit("started", attempt=1)
            log.emit("failed" if version == "1" else "compressed", until=datetime.now(UTC))
    before = stream.getvalue()
    assert "m 1: failed" in before
    assert "{" not in before
    log.print_summary()
    table = stream.getvalue().removeprefix(before)
    assert "failed" in table
    assert "compressed" in table
    assert "started" not in table
