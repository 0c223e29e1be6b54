"""An HTTP service for webhooks of MLflow's registry: it starts a pass and answers at once.

Starlette and uvicorn leave the limits to the application: the size of a request, its duration, and
the number of connections.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from adapruner.errors import UserError
from pipelines.log import EventLog
from pipelines.schedules.passes import Passes
from pipelines.service.webhooks import EVENTS, Deliveries, RefusedError, check_signature, event_of

MOST_BODY_BYTES = 1 << 20
MOST_HEADER_BYTES = 16 << 10
MOST_CONNECTIONS = 64
SHORTEST_RETRY, LONGEST_RETRY = 5.0, 300.0
"""Seconds before a pass that could not start is tried again, doubled each time."""
REQUEST_SECONDS = 10.0
SHORTEST_SECRET = 16


class PassQueue:
    """Runs passes in a thread: one at the start, and one after any number of requests.

    Events that came while the service was down, or before a pass that could not start, are thus
    handled. A pass that can't be started is tried again.
    """

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._requested = threading.Event()
        self._requested.set()
        self._thread = threading.Thread(target=self._run, name="passes")
        self._thread.start()

    def request(self) -> None:
        """Requests a pass that starts after this call. Returns at once."""
        self._requested.set()

    def stop(self) -> None:
        """Stops the running pass; returns when it has ended."""
        self._passes.stop()
        self._requested.set()
        self._thread.join()

    def _run(self) -> None:
        reason, wait = "start", SHORTEST_RETRY
        while self._requested.wait() and not self._passes.stopped.is_set():
            self._requested.clear()  # before the pass: a request during it starts another one
            try:
                self._passes.run(reason)
                reason, wait = "webhook", SHORTEST_RETRY
            except OSError as error:
                self._passes.log.emit("pass_not_started", problem=str(error), retry_seconds=wait)
                self._requested.set()
                self._passes.stopped.wait(wait)
                wait = min(2 * wait, LONGEST_RETRY)


def application(
    secret: str,
    deliveries: Deliveries,
    request_pass: Callable[[], None],
    log: EventLog,
    models: Collection[str] = (),
) -> Starlette:
    """POST / with a signed event of MLflow calls `request_pass`; GET /healthz answers.

    `models` are the registered models whose events count; by default all.
    """

    async def receive(request: Request) -> Response:
        body = await _body(request)
        now = time.time()
        delivery = check_signature(secret, request.headers, body, now)
        entity, action, name = event_of(body)
        deliveries.add(delivery, now)
        is_accepted = (entity, action) in EVENTS and (not models or name in models)
        status = "accepted" if is_accepted else "ignored"
        webhook = f"{entity}.{action}"[:100]
        log.emit(status, delivery=delivery, webhook=webhook, model=name[:300])
        if is_accepted:
            request_pass()
        return JSONResponse({"status": status}, 202 if is_accepted else 200)

    async def healthy(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def refuse(request: Request, error: Exception) -> Response:
        return _refuse(request, error, log)

    return Starlette(
        routes=[
            Route("/", receive, methods=["POST"]),
            Route("/healthz", healthy, methods=["GET"]),
        ],
        exception_handlers={RefusedError: refuse, HTTPException: refuse},
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


def _refuse(request: Request, error: Exception, log: EventLog) -> Response:
    """Answers and logs a refusal, without headers and body, which may hold secrets."""
    if isinstance(error, RefusedError):
        status, reason = error.status, error.reason
    else:
        status = getattr(error, "status_code", 500)
        reason = str(getattr(error, "detail", "error"))
    peer = request.client.host if request.client else ""
    path = request.url.path[:100]
    log.emit("refused", status=status, reason=reason, method=request.method, path=path, peer=peer)
    content = {"status": "refused", "reason": reason}
    return JSONResponse(content, status, getattr(error, "headers", None))


class Connection(H11Protocol):
    """A connection that ends after REQUEST_SECONDS, and at once where there are too many.

    uvicorn would wait without limit for the head of a request, and count requests alone.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)


def listen(
    passes: Passes, secret: str, home: Path, host: str, port: int, models: Collection[str] = ()
) -> int:
    """Serves webhooks until SIGTERM or SIGINT; returns 0.

    Port 0 is any free port; the log names it. The running pass is stopped at the end. Raises
    UserError if the port can't be used.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = passes.log
    with (
        _without_signals(),
        _bind(host, port) as bound,
        closing(Deliveries(home / "deliveries.db")) as deliveries,
    ):
        queue = PassQueue(passes)
        try:
            port = bound.getsockname()[1]
            models = sorted(models)
            log.emit("listening", host=host, port=port, models=models, command=passes.command)
            _serve(application(secret, deliveries, queue.request, log, models), bound)
        finally:
            log.emit("stopping")
            queue.stop()
    log.emit("stopped")
    return 0


def secret_in(name: str) -> str:
    """The secret of the webhook, from the environment variable `name`. Raises UserError."""
    secret = os.environ.get(name, "")
    if len(secret) < SHORTEST_SECRET:
        raise UserError(
            f"the environment variable {name} holds {len(secret)} characters; expected the "
            f"webhook's secret, of {SHORTEST_SECRET} or more"
        )
    return secret


@contextmanager
def _without_signals() -> Iterator[None]:
    """SIGTERM and SIGINT do nothing while the body runs, but where uvicorn handles them.

    uvicorn raises the signal that stopped it again; and a second one must not end the service
    before the running pass has been stopped.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    if not host:
        raise UserError("--host is empty; give the address to listen on, such as 127.0.0.1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise UserError(
            f"{host}:{port} can't be used ({error.strerror}); give another --host or --port"
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
    uvicorn.Server(config).run(sockets=[bound])
