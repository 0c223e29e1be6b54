"""Trials a minute of one search with workers.

    python -m benchmarks.workers [WORKERS ...]

A random Llama of 135 million weights is searched by the run alone (0) and with WORKERS `adapruner
work` beside it (default: 0 1 2), on PostgreSQL where it is installed, else on SQLite; every
process has one thread. Printed: the trials between the start of the first and the end of the last
one, their seconds, and whether the plan is that of the first row.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import torch

from adapruner.config import RunConfig
from adapruner.data.pool import Pool
from adapruner.importance.needs import gradient_groups
from adapruner.importance.statistics import importance_table, reference_subset
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from adapruner.search.inputs import SearchInputs
from adapruner.search.search import search
from benchmarks import growth
from tests import servers

PARALLEL, TRIALS = 4, 16
SETTINGS = growth.SETTINGS | {
    "model": {"source": "dense", "device": "cpu"},
    "search": growth.SETTINGS["search"] | {"trials": TRIALS, "parallel": PARALLEL},
}
CONFIG = RunConfig.model_validate(SETTINGS)


def main(counts: list[int]) -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        inputs = make_inputs(root)
        names = [f"studies{number}" for number in range(len(counts))]
        urls = [f"sqlite:///{root / name}.db" for name in names]
        if servers.postgres_programs() is not None:
            url = stack.enter_context(servers.postgres(*names))
            urls = [f"{url}/{name}" for name in names]
        print(f"{urls[0].partition(':')[0]}, search.parallel: {PARALLEL}")
        print("| workers | trials | s | trials a minute | same plan |\n|" + " --- |" * 5)
        plans = []
        for count, url in zip(counts, urls, strict=True):
            out = root / f"out{count}"
            out.mkdir()
            with workers(count, url):
                search(inputs, CONFIG.plan_config, url, out)
            plans.append((out / "plan.json").read_bytes())
            trials, seconds = evaluated(url)
            print(
                f"| {count} | {trials} | {seconds:.0f} | {trials / seconds * 60:.1f} | "
                f"{'yes' if plans[-1] == plans[0] else 'NO'} |",
                flush=True,
            )


def make_inputs(root: Path) -> SearchInputs:
    """The model, its pool, and the statistics that trials read."""
    growth.make_inputs(root, "135M")
    model, pool = ckpt.load_model(root / "dense", CONFIG.model), Pool.read(root / "pool")
    table, grams = root / "importance", root / "gram_matrices"
    for out in (table, grams):
        out.mkdir()
    reference = reference_subset(len(pool.calibration), CONFIG.search.set_size, 0)
    domain = pool.calibration_domain
    groups = gradient_groups(CONFIG)
    importance_table(model, pool.calibration, reference, domain, groups=groups, out=table)
    compute_gram_matrices(model, pool.update, pool.domain, grams)
    return SearchInputs(root / "dense", root / "pool", table, grams, root / "tasks")


@contextmanager
def workers(count: int, url: str) -> Iterator[None]:
    """Within it, `count` processes wait for the search; they end with it."""
    command = [sys.executable, "-m", "pipelines.cli", "work", "--storage", url, "--wait", "300s"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        yield
        assert all(process.wait() == 0 for process in started)
    finally:
        for process in started:
            process.kill()


def evaluated(url: str) -> tuple[int, float]:
    """Trials of the study, and the seconds between the first one's start and the last one's end."""
    (name,) = optuna.get_all_study_names(url)
    trials = optuna.load_study(study_name=name, storage=url).trials
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    return len(ends), (max(ends) - min(starts)).total_seconds()


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or [0, 1, 2])
