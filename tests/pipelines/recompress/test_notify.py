from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from pipelines.recompress.config import Notify
from pipelines.recompress.notify import notify

EVENT = {"event": "failed", "source": "m", "version": "3", "reason": 'a "quoted" one'}


class Receiver(BaseHTTPRequestHandler):
    got: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, json.loads(body)))
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Receiver.got.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_event_is_sent_as_the_template_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"{url}/SECRET")
    assert notify(Notify(url_env="HOOK"), EVENT) is None
    body = '{"v": {{ version | tojson }}, "none": "{{ target }}"}'
    assert notify(Notify(url_env="HOOK", body=body), EVENT) is None
    summary = 'AdaPruner failed: m 3 a "quoted" one'
    assert Receiver.got == [
        ("/SECRET", {"text": summary, "event": "failed"}),
        ("/SECRET", {"v": "3", "none": ""}),
    ]


def test_what_nobody_asked_for_is_not_sent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", url)
    assert notify(None, EVENT) is None
    assert notify(Notify(url_env="HOOK", events=("promotion",)), EVENT) is None
    assert notify(Notify(url_env="HOOK"), {"event": "skipped"}) is None
    assert not Receiver.got


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{url}/broken", "answered 500"),
        ("http://127.0.0.1:9/SECRET", "can't be reached"),
        ("file:///etc/SECRET", "holds no http"),
        ("", "holds no http"),
    ],
)
def test_its_failure_is_said_without_the_url(
    url: str, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv("HOOK", given.format(url=url))
    problem = notify(Notify(url_env="HOOK"), EVENT)
    assert said in str(problem)
    assert "SECRET" not in str(problem)
