from __future__ import annotations

import json
import threading
from collections.abc import Iterator
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
