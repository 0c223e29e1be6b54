"""How the cost of each stage grows with the model, against what `adapruner estimate` says.

    python -m benchmarks.growth [SIZE ...]

Random Llamas (SIZE: 135M, 400M, 1.1B, 6.6B; by default the first three) go through the
stages with the same few samples, each stage in a process of its own that has imported the
libraries. Printed: seconds and the largest memory, as measured and as estimated, and the exponent
of the growth of the time with the number of parameters. The memory is what was allocated on the
GPU, or the resident size beyond the libraries' where there is none. On two cores: a quarter of an
hour or more.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapruner.config import RunConfig
from adapruner.data.pool import Pool
from adapruner.estimation.estimate import estimate
from adapruner.files import write_json
from adapruner.importance.needs import gradient_groups
from adapruner.importance.statistics import importance_table, reference_subset
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.memory import process_bytes
from adapruner.pruning.apply import prune
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from adapruner.recovery.adapters import add_adapters
from adapruner.recovery.training.examples import Example
from adapruner.recovery.training.training import TrainingData, train
from adapruner.search.inputs import SearchInputs
from adapruner.search.search import search
from benchmarks.streaming import apart

SHAPES = {
    "tiny": (64, 192, 14, 4, 2),
    "135M": (576, 1536, 30, 9, 3),
    "400M": (1024, 2816, 24, 16, 4),
    "1.1B": (2048, 5632, 22, 32, 4),
    "6.6B": (4096, 11008, 32, 32, 32),
}
"""Size -> hidden size, MLP channels, layers, query heads, KV groups. The first is not measured."""

DEFAULT = ["135M", "400M", "1.1B"]

VOCABULARY, LENGTH = 32000, 128
GIB = 2**30

SETTINGS: dict[str, Any] = {
    "name": "growth",
    "model": {"source": "dense", "dtype": "auto"},
    "calibration": {
        "source": ["a", "b"],
        "pool_size": 8,
        "update_size": 24,
        "objective_tokens": 8 * LENGTH,
        "held_out_tokens": 8 * LENGTH,
    },
    "search": {"trials": 8, "finalists": 1, "objective": "kl", "set_size": 4},
    "pruning": {"layout": "per_layer", "ratio_of": "blocks"},
    "finetune": {"steps": 6},
    "registry": {"name": "growth"},
}
CONFIG = RunConfig.model_validate(SETTINGS)

Stage = Callable[[Path, Path], None]


def main(sizes: list[str]) -> None:
    print("| stage | size | s | estimated | GiB | estimated |\n|" + " --- |" * 6)
    seconds: dict[str, dict[str, float]] = {name: {} for name in STAGES}
    for size in sizes:
        with TemporaryDirectory() as folder:
            for name, taken in measure(size, Path(folder)):
                seconds[name][size] = taken
    if len(sizes) > 1:
        for name, of_size in seconds.items():
            print(f"{name}: time grows with parameters to the power {exponent(of_size):.2f}")


def measure(size: str, root: Path) -> Iterator[tuple[str, float]]:
    """Prints the costs of each stage at a size; yields its seconds."""
    apart(partial(make_inputs, root, size))
    apart(partial(make_inputs, root / "tiny", "tiny"))
    expected = apart(partial(estimated, root))
    for name, stage in STAGES.items():
        seconds, peak = apart(partial(run, stage, root, root / name))
        cost = expected[name]
        print(
            f"| {name} | {size} | {seconds:.1f} | {cost.seconds:.1f} | {peak / GIB:.2f} | "
            f"{cost.memory / GIB:.2f} |",
            flush=True,
        )
        yield name, seconds


def estimated(root: Path) -> Any:
    """What `adapruner estimate` says of the stages."""
    dense = root / "dense"
    return dict(estimate(CONFIG, ckpt.read_config(dense), "dense", dense).stages)


def make_inputs(root: Path, size: str) -> None:
    """A checkpoint, and a pool of random tokens in two domains."""
    hidden, channels, layers, heads, groups = SHAPES[size]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM(config).bfloat16().save_pretrained(root / "dense")
    settings = CONFIG.calibration
    windows = [settings.update_size, settings.objective_tokens // LENGTH]
    ids = torch.randint(3, VOCABULARY, (sum(windows) + windows[1], LENGTH), dtype=torch.int32)
    update, objective, held_out = (part.clone() for part in ids.split([*windows, windows[1]]))
    domain = torch.arange(len(update), dtype=torch.int32) % 2
    (root / "pool").mkdir(parents=True)
    Pool(update[: settings.pool_size].clone(), update, domain, objective, held_out).write(
        root / "pool"
    )
    (root / "tasks").mkdir()
    write_json(root / "tasks" / "objective_tasks.json", {})


def run(stage: Stage, root: Path, out: Path) -> tuple[float, int]:
    """The seconds of a stage, and the peak of its memory in bytes.

    A tiny model goes through it first: libraries import some of their parts when these are used.
    """
    for folder in (root / "tiny" / out.name, out):
        folder.mkdir()
    stage(root / "tiny", root / "tiny" / out.name)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    before, start = process_bytes("VmRSS"), time.perf_counter()
    stage(root, out)
    seconds = time.perf_counter() - start
    if torch.cuda.is_available():
        return seconds, torch.cuda.max_memory_allocated()
    return seconds, process_bytes("VmHWM") - before


def importance(root: Path, out: Path) -> None:
    model, pool = ckpt.load_model(root / "dense", CONFIG.model), Pool.read(root / "pool")
    reference = reference_subset(len(pool.calibration), CONFIG.search.set_size, 0)
    groups = gradient_groups(CONFIG)
    domain = pool.calibration_domain
    importance_table(model, pool.calibration, reference, domain, groups=groups, out=out)


def gram_matrices(root: Path, out: Path) -> None:
    model, pool = ckpt.load_model(root / "dense", CONFIG.model), Pool.read(root / "pool")
    compute_gram_matrices(model, pool.update, pool.domain, out)


def search_plan(root: Path, out: Path) -> None:
    inputs = SearchInputs(
        root / "dense", root / "pool", root / "estimate_importance", root / "compute_gram_matrices",
        root / "tasks",
    )  # fmt: skip
    search(inputs, CONFIG.plan_config, f"sqlite:///{out}/study.db", out)


def prune_model(root: Path, out: Path) -> None:
    prune(root / "dense", root / "search", root / "pool", CONFIG.model, CONFIG.reconstruction, out)


def finetune(root: Path, out: Path) -> None:
    """The adapters' training, without the merge."""
    settings, pool = CONFIG.finetune, Pool.read(root / "pool")
    model = add_adapters(ckpt.load_model(root / "prune", CONFIG.model), settings)
    examples = [Example(window.tolist(), window.tolist()) for window in pool.update]
    train(model, TrainingData(examples, None, pool.objective[:1].clone()), settings, 0)


STAGES: dict[str, Stage] = {
    "estimate_importance": importance,
    "compute_gram_matrices": gram_matrices,
    "search": search_plan,
    "prune": prune_model,
    "finetune": finetune,
}


def exponent(seconds: dict[str, float]) -> float:
    """The slope of log time over log parameters, by least squares."""
    units = {"M": 1e6, "B": 1e9}
    points = [
        (math.log(float(size[:-1]) * units[size[-1]]), math.log(value))
        for size, value in seconds.items()
    ]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


if __name__ == "__main__":
    main(sys.argv[1:] or DEFAULT)
