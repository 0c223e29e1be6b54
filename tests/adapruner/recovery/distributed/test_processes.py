"""Fine-tuning by several processes is that of one, and ends where one of them does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.config import DeviceConfig
from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import load_model, save_checkpoint, stored_dtypes
from adapruner.pruning.surgery import apply
from adapruner.recovery.distributed import processes
from adapruner.recovery.distributed.processes import MERGED, REQUEST, main
from adapruner.recovery.finetune import CHECKPOINT, RecoveryRequest, finetune, to_json
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.training.teacher_logits import compute_teacher_logits
from tests.adapruner.conftest import Workplace
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.recovery.requests import settings
from tests.models import small_model

# One import of the libraries for all processes.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["adapruner.recovery.distributed.processes", "peft", __name__])
PATIENCE_S = 120.0
CPU = DeviceConfig(device="cpu")


def request_of(
    work: Workplace, folder: Path, kind: str = "llama", dtype: str = "float32", **changes: Any
) -> RecoveryRequest:
    """The recovery of a model whose layers have different widths, stored in `dtype`."""
    cut, teacher = folder / "cut", folder / "teacher"
    cut.mkdir()
    teacher.mkdir()
    model, config = small_model(kind), settings(**{"steps": 6, "batch_size": 5} | changes)
    apply(model, plan_for(model, "ragged"))
    save_checkpoint(model.to(getattr(torch, dtype)), work.checkpoint, cut)
    compute_teacher_logits(work.checkpoint, work.pool, work.model, config.teacher, teacher)
    return RecoveryRequest(cut, work.checkpoint, teacher, work.pool, work.model, config, seed=0)


def in_process(rank: int, world: int, port: int, folder: Path) -> None:
    """A process as torchrun starts it."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    main(folder)


def exit_codes(request: RecoveryRequest, world: int, folder: Path) -> list[int | None]:
    """Those of `world` processes that write their result to `folder`, a new one."""
    folder.mkdir()
    (folder / REQUEST).write_text(to_json(request), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = [(rank, world, port, folder) for rank in range(world)]
    members = [SERVER.Process(target=in_process, args=a, daemon=True) for a in arguments]
    for member in members:
        member.start()
    for member in members:
        member.join(PATIENCE_S)
    return [member.exitcode for member in members]


def assert_same(one: Path, several: Path, results: list[RecoveryResult], before: Path) -> None:
    """Curves and weights are equal but for rounding, in the data types of the checkpoint before."""
    first, second = ([*result.curve] for result in results)
    assert results[0].model_copy(update={"curve": results[1].curve}) == results[1]
    losses = [[[p.loss, p.held_out or 0.0] for p in curve] for curve in (first, second)]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=0)
    assert stored_dtypes(several) == stored_dtypes(one) == stored_dtypes(before)
    assert (several / "config.json").read_text() == (one / "config.json").read_text()
    expected, weights, old = (load_weights(folder) for folder in (one, several, before))
    rounding = torch.finfo(next(iter(old.values())).dtype).eps
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=rounding, atol=2e-5, msg=name)
    changes = [float((weights[name] - old[name]).abs().max()) for name in weights]
    assert sum(change > 1e-2 for change in changes) == 4 * 7, "all projections of all layers"


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights by name, in their stored type."""
    dtype = next(iter(stored_dtypes(folder).values()))
    weights: dict[str, torch.Tensor] = load_model(folder, CPU, dtype).state_dict()
    return weights


@pytest.mark.parametrize(
    ("kind", "world", "changes"),
    [
        ("llama", 2, {"recompute": True}),
        pytest.param("llama-biased", 3, {"loss": "both"}, marks=pytest.mark.slow),
    ],
)
def test_several_processes_train_as_one(
    kind: str, world: int, changes: dict[str, Any], workplace: Workplace, tmp_path: Path
) -> None:
    request = request_of(workplace, tmp_path, kind, **changes)
    (tmp_path / "one").mkdir()
    one = finetune(request, tmp_path / "one")
    several = tmp_path / "several"
    assert exit_codes(request, world, several) == [0] * world
    results = [one, RecoveryResult.read(several)]
    assert_same(tmp_path / "one" / CHECKPOINT, several / MERGED, results, request.checkpoint)


def test_a_loss_that_is_not_finite_ends_all_processes(workplace: Workplace, tmp_path: Path) -> None:
    request = request_of(workplace, tmp_path, learning_rate=1e30)
    assert exit_codes(request, 2, tmp_path / "several") == [1, 1]
    assert "finetune.learning_rate" in (tmp_path / "several" / "error.txt").read_text()
    assert not (tmp_path / "several" / MERGED).exists()


def test_adapters_of_experts_are_trained_by_one_process(
    workplace: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_of(workplace, tmp_path, "qwen3-moe", steps=2)
    (tmp_path / "out").mkdir()
    result = finetune(replace(request, processes=2), tmp_path / "out")
    assert len(result.curve) == 2
    assert "in one process" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_that_torchrun_starts_write_the_result_of_one(
    workplace: Workplace, tmp_path: Path
) -> None:
    request = request_of(workplace, tmp_path, dtype="float16")
    results = []
    for name, count in (("one", 1), ("several", 2)):
        (tmp_path / name).mkdir()
        results.append(finetune(replace(request, processes=count), tmp_path / name))
    one, several = (tmp_path / name / CHECKPOINT for name in ("one", "several"))
    assert_same(one, several, results, request.checkpoint)
    left = {path.name for path in (tmp_path / "several").iterdir()}
    assert left == {CHECKPOINT, RecoveryResult.FILE}


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_within_seconds(
    workplace: Workplace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    request = replace(request_of(workplace, tmp_path, steps=100_000), processes=2)
    out, printed = tmp_path / "out", ""
    out.mkdir()
    deadline = time.monotonic() + PATIENCE_S
    with ThreadPoolExecutor(1) as thread:
        tuning = thread.submit(finetune, request, out)
        try:
            while "100000 steps" not in printed and time.monotonic() < deadline:
                time.sleep(0.1)
                printed += capfd.readouterr().err
            workers = workers_below(os.getpid())
            assert len(workers) == 2, printed
            os.kill(workers[1], signal.SIGKILL)
            with pytest.raises(UserError, match=r"model\.processes 2: a process .* failed"):
                tuning.result(timeout=20)
        finally:  # else the executor waits for the thread
            for pid in workers_below(os.getpid()):
                os.kill(pid, signal.SIGKILL)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert [path.name for path in out.iterdir()] == [CHECKPOINT]
    assert not any((out / CHECKPOINT).iterdir())


def workers_below(process: int) -> list[int]:
    """The processes of the fine-tuning that torchrun, a child of `process`, has started."""
    found: list[int] = []
    by_thread = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")]
    for child in map(int, " ".join(by_thread).split()):
        command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        is_worker = processes.__name__ in command and "torch.distributed.run" not in command
        found += [child] if is_worker else workers_below(child)
    return found
