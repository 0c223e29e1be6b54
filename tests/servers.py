"""Real servers for tests: PostgreSQL, MariaDB, MLflow and S3, on loopback, on free ports.

They write to temporary folders alone, and only processes that were started here are ended.
"""

from __future__ import annotations

import base64
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PATIENCE = 120.0


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's newest programs; None where it is not installed."""
    initdb = shutil.which("initdb")
    if initdb:
        return Path(initdb).parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


def free_port() -> int:
    """A port of this machine that no process uses."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """A PostgreSQL server with these databases; yields their URL without `/` and the name."""
    import psycopg

    programs = postgres_programs()
    assert programs is not None
    # PostgreSQL does not run as root.
    user = _other_user() if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password, port = secrets.token_urlsafe(24), free_port()
    try:
        _initialise(programs, folder, password, user)
        command = [
            *(str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
        ]
        login = {"user": "tests", "password": password, "host": "127.0.0.1", "port": port}

        def answers() -> bool:
            try:
                with psycopg.connect(**login, dbname="postgres", autocommit=True) as connection:
                    for name in databases:
                        connection.execute(f"CREATE DATABASE {name}".encode())
            except psycopg.OperationalError:
                return False
            return True

        # On SIGINT it releases its shared memory, which takes a moment.
        with running(command, folder / "log", answers, user=user, grace=PATIENCE):
            yield f"postgresql+psycopg://tests:{password}@127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder)


def has_mariadb() -> bool:
    """Whether MariaDB's server is installed."""
    return shutil.which("mariadb-install-db") is not None and _mariadbd() is not None


@contextmanager
def mariadb(*databases: str) -> Iterator[str]:
    """A MariaDB server with these databases; yields their URL without `/` and the name."""
    import pymysql

    user = _other_user() if os.getuid() == 0 else os.getuid()
    folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
    password, port = secrets.token_urlsafe(24), free_port()
    try:
        statements = [
            f"CREATE USER tests@localhost IDENTIFIED BY '{password}'",
            "GRANT ALL ON *.* TO tests@localhost",
            *(f"CREATE DATABASE {name}" for name in databases),
        ]
        (folder / "init.sql").write_text("".join(f"{line};\n" for line in statements))
        for path in (folder, folder / "init.sql"):
            os.chown(path, user, pwd.getpwuid(user).pw_gid)
        data = f"--datadir={folder / 'data'}"
        install = ["mariadb-install-db", "--no-defaults", data, "--skip-test-db"]
        subprocess.run(install, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)
        command = [
            *(str(_mariadbd()), "--no-defaults", data, f"--init-file={folder / 'init.sql'}"),
            *("--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder / 'socket'}"),
            *(f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0"),
        ]
        login = {"user": "tests", "password": password, "host": "127.0.0.1", "port": port}

        def answers() -> bool:
            try:
                pymysql.connect(**login, database=databases[-1]).close()
            except pymysql.err.OperationalError:
                return False
            return True

        with running(command, folder / "log", answers, user=user):
            yield f"mysql+pymysql://tests:{password}@127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder)


def _mariadbd() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def mlflow_server(folder: Path, database: str, environment: Mapping[str, str]) -> Iterator[str]:
    """`mlflow server` on a database, which serves artifacts from `folder`; yields its URL."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--artifacts-destination", str(folder / "artifacts")),
    ]
    # The database's URL holds a password, and every user of the machine can read arguments.
    settings = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves eight processes
    }
    url = f"http://127.0.0.1:{port}"
    answers = web(f"{url}/health")
    with running(command, folder / "mlflow.log", answers, {**settings, **environment}):
        yield url


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """An S3-compatible store in memory that accepts any login; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("moto_server")), "-p", str(port)]
    with running(command, folder / "s3.log", web(url)):
        yield url


def webhook_settings() -> dict[str, str]:
    """The settings with which `mlflow server` stores secrets and calls webhooks on loopback."""
    return {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # the default delays a new webhook by a minute
    }


def _initialise(programs: Path, folder: Path, password: str, user: int | None) -> None:
    """Creates a PostgreSQL data directory, `folder`/data, that belongs to `user`."""
    password_file = folder / "password"
    password_file.write_text(password + "\n")
    if user is not None:
        for path in (folder, password_file):
            os.chown(path, user, pwd.getpwuid(user).pw_gid)
    command = [
        *(programs / "initdb", "-D", folder / "data", "-U", "tests"),
        *("--pwfile", password_file, "-A", "scram-sha-256"),
        *("-E", "UTF8", "--locale=C", "--no-sync"),
    ]
    subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)


def _other_user() -> int:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise AssertionError("there is no user that PostgreSQL could run as")


def web(url: str) -> Callable[[], bool]:
    """Whether a web server answers, for `running`."""

    def answers() -> bool:
        try:
            with urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    return answers


@contextmanager
def running(
    command: list[str],
    log: Path,
    answers: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    grace: float = 1.0,
) -> Iterator[None]:
    """Runs the command in a process group of its own; yields once `answers` is true.

    At the end it gets SIGINT, and the group is killed after `grace` seconds.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            user=user,
            group=None if user is None else pwd.getpwuid(user).pw_gid,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
