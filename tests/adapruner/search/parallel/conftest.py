"""The inputs of a small search, and an empty database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapruner.config import PlanConfig
from adapruner.search.inputs import SearchInputs
from tests import servers
from tests.adapruner.conftest import Workplace, write_gram_matrices, write_importance
from tests.adapruner.search import test_search

DATABASES = [f"studies{number}" for number in range(8)]


@pytest.fixture(scope="package")
def inputs(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> SearchInputs:
    table = tmp_path_factory.mktemp("table")
    write_importance(workplace, table)
    write_gram_matrices(workplace, table)
    return test_search.inputs_of(workplace, table)


@pytest.fixture(scope="package")
def config(workplace: Workplace) -> PlanConfig:
    """Five warm starts, and two generations of three trials."""
    return test_search.config(workplace, trials=11, parallel=3)


@pytest.fixture(scope="package")
def postgresql() -> Iterator[Iterator[str]]:
    """URLs of databases on one PostgreSQL server."""
    with servers.postgres(*DATABASES) as url:
        yield iter([f"{url}/{name}" for name in DATABASES])


@pytest.fixture(scope="package")
def mariadb() -> Iterator[Iterator[str]]:
    """URLs of databases on one MariaDB server."""
    with servers.mariadb(*DATABASES) as url:
        yield iter([f"{url}/{name}" for name in DATABASES])


def _server(name: str, package: str, *, is_installed: bool) -> Any:
    reason = f"{package}'s programs are not installed"
    skipped = pytest.mark.skipif(not is_installed, reason=reason)
    return pytest.param(name, marks=[pytest.mark.slow, skipped])


@pytest.fixture(
    params=[
        "sqlite",
        _server("postgresql", "PostgreSQL", is_installed=servers.postgres_programs() is not None),
        _server("mariadb", "MariaDB", is_installed=servers.has_mariadb()),
    ]
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    return str(next(request.getfixturevalue(request.param)))
