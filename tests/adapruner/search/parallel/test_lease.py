"""One process at a time has the lease of a study."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import optuna
import pytest

from adapruner.errors import UserError
from adapruner.search.parallel import lease
from adapruner.search.parallel.lease import Lease, held_lease
from adapruner.search.parallel.storage import open_storage
from tests.adapruner.search.parallel.processes import ended, start, wait_for

EXPIRY_S = 3.0


def held(storage: str, seconds: float, file: Path) -> None:
    """Holds the lease for a time; writes the former owner to `file` when it has it."""
    lease.BEAT_S, lease.EXPIRY_S = 0.3, EXPIRY_S
    opened = open_storage(storage)
    study = optuna.create_study(study_name="led", storage=opened, load_if_exists=True)
    with held_lease(opened, study) as ours:
        file.write_text(str(ours.former))
        time.sleep(seconds)


@pytest.mark.slow
def test_a_living_owner_keeps_its_lease_and_that_of_a_killed_one_expires(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_S", EXPIRY_S)
    first = start(held, storage, 60, tmp_path / "first")
    wait_for(tmp_path / "first", first)
    opened = open_storage(storage)
    study = optuna.load_study(study_name="led", storage=opened)
    with pytest.raises(UserError, match=f"another run is searching the study led .*{first.pid}"):
        Lease(opened, study)
    os.kill(first.pid or 0, signal.SIGKILL)
    rivals = [start(held, storage, 2 * EXPIRY_S, tmp_path / f"rival{n}") for n in range(2)]
    codes = [ended(rival) for rival in rivals]
    assert (tmp_path / "first").read_text() == "None"
    assert sorted(code or 0 for code in codes) == [0, 1], "one gets it, the other is refused"
    with held_lease(opened, study) as ours:
        assert ours.former is None, "the last owner has released it"


def test_an_owner_that_was_suspended_notices_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_S", 0.2)
    opened = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    study = optuna.create_study(study_name="led", storage=opened)
    suspended = Lease(opened, study)
    successor = Lease(opened, study)
    assert successor.former == suspended.owner
    successor.check()
    time.sleep(0.2)
    with pytest.raises(UserError, match="has taken over the study led"):
        suspended.check()
    suspended.release()
    successor.check()
