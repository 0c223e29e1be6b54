"""`adapruner listen` in a process of its own, and requests to it."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.pipelines.service.signing import BODY, SECRET, signed
from tests.pipelines.services import PATIENCE, Service, started

LISTEN = """
import json, sys
from pathlib import Path
from pipelines.schedules.passes import Passes
from pipelines.service import listen
if len(sys.argv) > 3:
    listen.REQUEST_SECONDS = float(sys.argv[3])
command, home = json.loads(sys.argv[1]), Path(sys.argv[2])
passes = Passes(command, grace=1)
sys.exit(listen.listen(passes, listen.secret_in("SECRET"), home, "127.0.0.1", 0, ["mine"]))
"""
PASS = """
import os, sys, time
open("passes", "a").write("x")
while not os.path.exists("go"):
    time.sleep(0.02)
"""
"""A pass that counts itself and ends when the file `go` exists."""


@dataclass
class Listener:
    service: Service
    port: int

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def post(self, delivery: str, body: bytes = BODY, **other: str) -> int:
        return self.request("POST", "/", body, signed(delivery, body) | other)

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(4096), b""))


def listening(folder: Path, *arguments: str) -> AbstractContextManager[Service]:
    command = json.dumps([sys.executable, "-c", PASS])
    environment = {"SECRET": SECRET}
    return started(LISTEN, command, "home", *arguments, cwd=folder, environment=environment)
