"""An S3-compatible store in memory that records what each request moved.

    python tests/cluster/s3_server.py PORT FILE

FILE gets a line of JSON for each request: `step` is the client's application (AWS_SDK_UA_APP_ID),
`path` the object, `received` and `sent` the bytes of the bodies.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

APPLICATION = re.compile(r"\bapp/(\S+)")


class Recorded:
    """A WSGI application whose requests are recorded in `file`."""

    def __init__(self, application: Any, file: Path) -> None:
        self.application, self.file, self.lock = application, file, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = list(self.application(environ, start_response))
        client = APPLICATION.search(environ.get("HTTP_USER_AGENT", ""))
        line = {
            "step": client[1] if client else "",
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "received": int(environ.get("CONTENT_LENGTH") or 0),
            "sent": 0 if environ["REQUEST_METHOD"] == "HEAD" else sum(map(len, body)),
        }
        with self.lock, self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return body


if __name__ == "__main__":
    port, requests = sys.argv[1:]
    store = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(port), Recorded(store, Path(requests)), threaded=True)
