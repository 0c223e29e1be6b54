from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from pipelines.recompress.config import DEFAULT_BODY
from pipelines.recompress.notify import render, send

EVENT = {"event": "failed", "source": "m", "version": "3", "reason": 'a "quoted" one'}


class Receiver(BaseHTTPRequestHandler):
    requests: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, json.loads(body)))
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Receiver.requests.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_event_is_sent_as_the_template_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"{url}/SECRET")
    assert send(EVENT, DEFAULT_BODY, "HOOK", 5) is None
    body = '{"v": {{ version | tojson }}, "none": "{{ target }}"}'
    assert send(EVENT, body, "HOOK", 5) is None
    summary = 'AdaPruner failed: m 3 a "quoted" one'
    assert Receiver.requests == [
        ("/SECRET", {"text": summary, "event": "failed"}),
        ("/SECRET", {"v": "3", "none": ""}),
    ]


@pytest.mark.parametrize("body", ["{{", "{{ sorce }}", "{{ ''.__class__.__mro__ }}"])
def test_an_invalid_template_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match="not a usable Jinja2 template"):
        render(body, EVENT)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{url}/broken", "answered 500"),
        ("http://127.0.0.1:9/SECRET", "can't be reached"),
        ("file:///etc/SECRET", "holds no http"),
        ("", "holds no http"),
    ],
)
def test_the_reason_of_a_failure_does_not_contain_the_url(
    url: str, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("HOOK", value.format(url=url))
    problem = send(EVENT, DEFAULT_BODY, "HOOK", 5)
    assert message in str(problem)
    assert "SECRET" not in str(problem)


@pytest.mark.parametrize(
    "body",
    [
        "{{ 1 / 0 }}",
        "{{ range(10 ** 12) | list }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ version.encode('no-codec') }}",
    ],
)
def test_a_template_that_fails_is_refused_whatever_it_raises(body: str) -> None:
    with pytest.raises(ValueError, match="not a usable Jinja2 template"):
        render(body, EVENT)


def test_a_number_of_an_event_can_be_a_percentage() -> None:
    assert render("{{ improvement * 100 }} %", {**EVENT, "improvement": 0.25}) == "25.0 %"


@pytest.mark.parametrize("url", ["http://[::1", "http://[x]:y/", "https://exa mple:port"])
def test_a_malformed_url_is_a_reason(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", url)
    assert send(EVENT, DEFAULT_BODY, "HOOK", 5) is not None


def test_a_server_that_drips_its_answer_does_not_outlive_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                    if ended.wait(0.2):
                        return
                    connection.sendall(bytes([byte]))

        threading.Thread(target=drip, daemon=True).start()
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert send(EVENT, DEFAULT_BODY, "HOOK", 1) == "the webhook did not answer within 1 s"
        ended.set()
