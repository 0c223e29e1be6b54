"""A small HTTP service that MLflow's registry webhooks call: it starts a pass and answers at once.

Starlette and uvicorn come with ZenML. What they leave to the application is here: how large a
request may be, how long it may take, and how many there may be at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelines.errors import mistake
from pipelines.schedules.passes import Passes, log
from pipelines.service.webhooks import EVENTS, Deliveries, RefusedError, check_signature, event_of

MOST_BODY_BYTES = 1 << 20
MOST_HEADER_BYTES = 16 << 10
MOST_CONNECTIONS = 64
REQUEST_SECONDS = 10.0
SHORTEST_SECRET = 16


class Inbox:
    """Passes in a thread: one at a time, and one more for all that arrives meanwhile."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._work, name="passes")
        self._thread.start()

    def ask(self) -> None:
        """A pass shall start that sees what is in the registry now. Returns at once."""
        self._asked.set()

    def stop(self) -> None:
        """Stop the running pass; returns when it is gone."""
        self._passes.stop()
        self._asked.set()
        self._thread.join()

    def _work(self) -> None:
        while self._asked.wait() and not self._passes.stopped.is_set():
            self._asked.clear()  # before the pass: what arrives during it asks for another
            try:
                self._passes.run("webhook")
            except OSError as error:
                log("pass not started", problem=str(error))


def application(
    secret: str, deliveries: Deliveries, ask: Callable[[], None], models: Collection[str] = ()
) -> Starlette:
    """POST / with a signed event of MLflow calls `ask`; GET /healthz answers.

    `models` are the registered models whose events count; none given: all.
    """

    async def receive(request: Request) -> Response:
        body = await _body(request)
        now = time.time()
        delivery = check_signature(secret, request.headers, body, now)
        entity, action, name = event_of(body)
        deliveries.take(delivery, now)
        wanted = (entity, action) in EVENTS and (not models or name in models)
        word = "accepted" if wanted else "ignored"
        log(word, delivery=delivery, webhook=f"{entity}.{action}"[:100], model=name[:300])
        if wanted:
            ask()
        return JSONResponse({"status": word}, 202 if wanted else 200)

    async def healthy(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/", receive, methods=["POST"]),
            Route("/healthz", healthy, methods=["GET"]),
        ],
        exception_handlers={RefusedError: _refuse, HTTPException: _refuse},
    )


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
        raise RefusedError(413, f"more than {MOST_BODY_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BODY_BYTES:
                    raise RefusedError(413, f"more than {MOST_BODY_BYTES} bytes")
    except (TimeoutError, ClientDisconnect):
        raise RefusedError(408, "the body did not arrive in time") from None
    return bytes(body)


async def _refuse(request: Request, error: Exception) -> Response:
    """Refuse and log it: never headers or body, which may hold secrets."""
    refused = error if isinstance(error, RefusedError) else None
    status = refused.status if refused else getattr(error, "status_code", 500)
    reason = refused.reason if refused else str(getattr(error, "detail", "error"))
    peer = request.client.host if request.client else ""
    path = request.url.path[:100]
    log("refused", status=status, reason=reason, method=request.method, path=path, peer=peer)
    answer = {"status": "refused", "reason": reason}
    return JSONResponse(answer, status, getattr(error, "headers", None))


class Connection(H11Protocol):
    """A connection that ends after REQUEST_SECONDS, whatever its other end does with it.

    uvicorn waits for ever for the head of a request.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)


def listen(
    passes: Passes, secret: str, home: Path, host: str, port: int, models: Collection[str] = ()
) -> int:
    """Take webhooks until SIGTERM or SIGINT; 0 then. Port 0: any free one, told in the log.

    The running pass is stopped at the end. Raises UserError when the port can't be had.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _bound(host, port) as bound, closing(Deliveries(home / "deliveries.db")) as deliveries:
        inbox = Inbox(passes)
        try:
            where = {"host": host, "port": bound.getsockname()[1], "models": sorted(models)}
            log("listening", **where, command=passes.command)
            _serve(application(secret, deliveries, inbox.ask, models), bound)
        finally:
            log("stopping")
            inbox.stop()
    log("stopped")
    return 0


def secret_in(name: str) -> str:
    """The webhook's secret from the environment variable `name`. Raises UserError."""
    secret = os.environ.get(name, "")
    if len(secret) < SHORTEST_SECRET:
        raise mistake(
            f"the environment variable {name} holds {len(secret)} characters; wanted the webhook's "
            f"secret, of {SHORTEST_SECRET} or more"
        )
    return secret


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise mistake(
            f"{host}:{port} can't be listened on ({error.strerror}); give another --host or --port"
        ) from None


def _serve(app: Starlette, bound: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("Connection", "close")],
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_graceful_shutdown=int(REQUEST_SECONDS),
    )
    # uvicorn gives the signal that ended it on to these.
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
