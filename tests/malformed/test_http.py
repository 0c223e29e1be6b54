"""Requests to `adapruner listen`: any bytes end in a refusal, and the next good one is accepted."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.malformed.mutations import (
    ODD,
    WRONG,
    WRONG_JSON,
    as_json,
    with_characters,
    with_key,
    with_value,
)
from tests.malformed.outcomes import SECONDS, examples
from tests.pipelines.service.listener import Listener, listening
from tests.pipelines.service.signing import BODY, signed

NUMBERS = itertools.count()
EVENT = json.loads(BODY)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    folder = tmp_path_factory.mktemp("listener")
    (folder / "go").touch()  # its passes end at once
    with listening(folder, "0.5") as service:
        yield Listener(service, service.event("listening")["port"])


def status_of(listener: Listener, request: bytes) -> int | None:
    """The status of the answer to raw bytes; None where the connection was closed without one."""
    start = time.monotonic()
    try:
        answer = listener.raw(request)
    except ConnectionError:
        answer = b""
    assert time.monotonic() - start < SECONDS
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert match or not answer
    event(f"status {match[1].decode() if match else None}")
    return int(match[1]) if match else None


def request_of(headers: dict[str, str], body: bytes, start: str = "POST / HTTP/1.1") -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body


def good(body: bytes = BODY) -> dict[str, str]:
    delivery = f"delivery-{next(NUMBERS)}"
    return {"Host": "h", "Content-Length": str(len(body)), **signed(delivery, body)}


def works(listener: Listener) -> None:
    assert listener.post(f"good-{next(NUMBERS)}") == 202


TEXT = request_of({"Host": "h", "Content-Length": "2"}, b"{}").decode()


@given(data=st.binary(max_size=200) | with_characters(TEXT).map(lambda data: data + b"\r\n\r\n"))
@examples(25)
def test_any_bytes_start_no_pass(listener: Listener, data: bytes) -> None:
    assert status_of(listener, data) not in (202, 500)
    works(listener)


STARTS = ("GET / HTTP/1.1", "PUT / HTTP/1.1", "POST /x HTTP/1.1", "POST /%00 HTTP/1.1",
          "POST //../ HTTP/1.1", "POST  / HTTP/1.1", "CONNECT / HTTP/1.1",
          "post / HTTP/1.1", "POST * HTTP/1.1", "\x00 / HTTP/1.1", "POST /" + "x" * 20000,
)  # fmt: skip
VALUES = ("", "-1", "+2", "1e3", "2, 2", "0x2", "99999999999", "9" * 5000, "\u0662", "\ud800",
          "\x00",
          "v1,", "v1,====", "v2,x", "Inf", "[/red]", "x" * 20000)  # fmt: skip
NAMES = st.sampled_from([*sorted(good()), "Transfer-Encoding", "Content-Encoding", "Expect"])


@given(start=st.sampled_from(STARTS))
@examples(12)
def test_another_method_path_or_version_starts_no_pass(listener: Listener, start: str) -> None:
    assert status_of(listener, request_of(good(), BODY, start)) not in (202, 500)
    works(listener)


@given(name=NAMES, value=st.sampled_from(VALUES) | st.text(max_size=20))
@examples(40)
def test_a_changed_header_starts_no_pass(listener: Listener, name: str, value: str) -> None:
    """Host and encodings that are ignored are no part of what is signed."""
    status = status_of(listener, request_of(good() | {name: value}, BODY))
    assert status != 500
    if name not in ("Host", "Transfer-Encoding", "Content-Encoding", "Expect"):
        assert status != 202
    works(listener)


@given(
    body=st.one_of(
        with_value(EVENT, ODD + WRONG + WRONG_JSON).map(str.encode),
        with_key(EVENT).map(str.encode),
        with_characters(as_json(EVENT)),
        st.sampled_from((*ODD, *WRONG, *WRONG_JSON)).map(str.encode),
        st.binary(max_size=40),
    )
)
@examples(50)
def test_a_signed_body_is_an_event_or_is_refused(listener: Listener, body: bytes) -> None:
    """A body that is changed in what does not count, such as the number of the version, counts."""
    assert status_of(listener, request_of(good(body), body)) in (200, 202, 400)
    works(listener)
