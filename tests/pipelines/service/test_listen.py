"""The service in a process of its own, called over a socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapruner.errors import UserError
from pipelines.cli.main import main
from pipelines.schedules.passes import Passes
from pipelines.service import listen, webhooks
from pipelines.service.webhooks import signature
from tests.pipelines.service.listener import LISTEN, Listener, listening
from tests.pipelines.service.signing import BODY, SECRET, signed
from tests.pipelines.services import PATIENCE, started


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    folder = tmp_path_factory.mktemp("listener")
    with listening(folder, "1.5") as service:
        yield Listener(service, service.event("listening")["port"])


def test_requests_during_a_pass_start_one_more_and_deliveries_outlive_a_restart(
    tmp_path: Path,
) -> None:
    with listening(tmp_path) as service:
        first = Listener(service, service.event("listening")["port"])
        assert service.event("pass_started")["reason"] == "start"
        assert first.post("one") == 202
        assert [first.post(f"more-{n}") for n in range(5)] == [202] * 5
        (tmp_path / "go").touch()
        service.event("pass_ended")
        service.event("pass_ended")
        (tmp_path / "go").unlink()
        assert first.post("last") == 202
        service.event("pass_started")
        # The pass counts itself once its interpreter runs.
        deadline = time.monotonic() + PATIENCE
        while (tmp_path / "passes").read_text() != "xxx" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert service.end(signal.SIGTERM) == 0
    assert (tmp_path / "passes").read_text() == "xxx"
    assert service.lines[-1]["event"] == "stopped"
    assert service.count("pass_started") == service.count("pass_ended") == 3
    assert SECRET not in json.dumps(service.lines)
    with listening(tmp_path) as service:
        again = Listener(service, service.event("listening")["port"])
        assert again.post("one") == 409
        assert service.event("refused")["reason"] == "repeated delivery"
        assert service.end(signal.SIGINT) == 0
    assert service.count("pass_started") == 1, "the pass at the start"


FORGED = [
    (401, {webhooks.SIGNATURE: "v1,AAAA"}),
    (401, {webhooks.SIGNATURE: ""}),
    (401, {webhooks.SIGNATURE: signature("another secret of length", "f", "0", BODY)}),
    (401, {webhooks.DELIVERY: "another"}),
    (401, signed("old", BODY, int(time.time()) - 100_000)),
    (401, signed("ahead", BODY, int(time.time()) + 100_000)),
    (400, {webhooks.TIMESTAMP: "1e9"}),
    (400, {webhooks.TIMESTAMP: "-5"}),
    (400, {webhooks.DELIVERY: "a b"}),
    (400, {webhooks.DELIVERY: "x" * 101}),
]


@pytest.mark.parametrize(("status", "changed"), FORGED)
def test_a_forged_request_is_refused_and_logged(
    listener: Listener, status: int, changed: dict[str, str]
) -> None:
    assert listener.post("forged", BODY, **changed) == status
    line = listener.service.event("refused")
    assert line["status"] == status
    assert not {"body", "headers"} & set(line)
    assert listener.service.count("accepted") == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"entity": 1, "action": [], "data": {}}', b"[" * 100_000]
)
def test_a_signed_body_without_an_event_is_refused(listener: Listener, body: bytes) -> None:
    assert listener.post(f"no-event-{len(body)}", body) == 400
    assert "not an event" in listener.service.event("refused")["reason"]


@pytest.mark.parametrize(
    ("entity", "action", "model"),
    [
        ("model_version_tag", "set", "mine"),
        ("model_version", "created", "another"),
        ("prompt", "created", "mine"),
    ],
)
def test_other_events_are_accepted_and_start_no_pass(
    listener: Listener, entity: str, action: str, model: str
) -> None:
    body = json.dumps({"entity": entity, "action": action, "data": {"name": model}}).encode()
    assert listener.post(f"other-{entity}-{model}", body) == 200
    assert listener.service.event("ignored")["webhook"] == f"{entity}.{action}"
    assert listener.service.count("pass_started") <= 1, "the pass at the start"


def test_any_other_path_or_method_is_refused(listener: Listener) -> None:
    assert listener.request("GET", "/healthz", b"", {}) == 200
    assert listener.request("GET", "/", b"", {}) == 405
    assert listener.request("POST", "/healthz", b"", {}) == 405
    assert listener.request("POST", "/other", BODY, signed("elsewhere", BODY)) == 404
    assert [listener.service.event("refused")["status"] for _ in range(3)] == [405, 405, 404]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 99999999\r\n\r\n",
        b"Content-Length: 1048577\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n%s\r\n" % (60_000, b"y" * 60_000)) * 18,
    ],
)
def test_an_oversized_body_is_refused_before_it_is_read(listener: Listener, head: bytes) -> None:
    assert b" 413 " in listener.raw(b"POST / HTTP/1.1\r\nHost: x\r\n" + head).splitlines()[0]
    assert listener.service.event("refused")["status"] == 413


@pytest.mark.parametrize(
    "part",
    [b"", b"POST / HTTP/1.1\r\nHos", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nxx"],
)
def test_an_incomplete_request_is_ended(listener: Listener, part: bytes) -> None:
    try:
        answer = listener.raw(part)
    except ConnectionResetError:
        answer = b""
    assert answer == b"" or b" 408 " in answer.splitlines()[0]
    assert listener.request("GET", "/healthz", b"", {}) == 200


def test_an_oversized_head_is_refused(listener: Listener) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000
    assert b" 400 " in listener.raw(head).splitlines()[0]


def test_a_missing_or_short_secret_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passes.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORT", "1234567")
    for name, length in (("ABSENT", 0), ("SHORT", 7)):
        result = CliRunner().invoke(main, ["listen", "-c", "passes.yaml", "--secret-env", name])
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert f"{name} holds {length} characters" in line
        assert "1234567" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["passes.yaml"]


def test_a_port_in_use_is_reported(listener: Listener, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give another --host or --port"):
        listen.listen(Passes(["true"]), SECRET, tmp_path, "127.0.0.1", listener.port)


def test_an_empty_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--host is empty"):
        listen.listen(Passes(["true"]), SECRET, tmp_path, "", 0)


def test_a_second_signal_does_not_leave_the_pass_behind(tmp_path: Path) -> None:
    stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    stubborn += "open('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    command = json.dumps([sys.executable, "-c", stubborn])
    with started(LISTEN, command, "home", cwd=tmp_path, environment={"SECRET": SECRET}) as service:
        service.event("pass_started")
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        service.process.send_signal(signal.SIGTERM)
        service.event("stopping")
        assert service.end(signal.SIGTERM) == 0
    pid = int((tmp_path / "pid").read_text())
    assert service.count("pass_killed") == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pass_that_can_not_start_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    script = LISTEN.replace("passes = ", "listen.SHORTEST_RETRY = 0.2\npasses = ")
    command = json.dumps([str(program)])
    with started(script, command, "home", cwd=tmp_path, environment={"SECRET": SECRET}) as service:
        assert service.event("pass_not_started")["retry_seconds"] == 0.2
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
        assert service.event("pass_ended")["exit_code"] == 0
        assert service.end(signal.SIGTERM) == 0


def test_surplus_idle_connections_are_closed(tmp_path: Path) -> None:
    with listening(tmp_path) as service, ExitStack() as stack:
        address = ("127.0.0.1", service.event("listening")["port"])
        held = [
            stack.enter_context(socket.create_connection(address, PATIENCE))
            for _ in range(listen.MOST_CONNECTIONS)
        ]
        surplus = stack.enter_context(socket.create_connection(address, PATIENCE))
        with suppress(ConnectionResetError):
            assert surplus.recv(1) == b""
        held[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            held[-1].recv(1)
