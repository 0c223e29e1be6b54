"""llama.cpp's programs on the exports, against Transformers.

    python benchmarks/exports/llama_cpp.py FOLDER BIN

FOLDER is that of `reference.py`, BIN has llama-completion, llama-perplexity and llama-bench. Prints
Markdown; the exit code is 1 where a text or a perplexity differs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

NEW_TOKENS, WINDOW, TURNS = 24, 512, 5
LIMITS = {"f32": 0.005, "q8_0": 0.01}
"""Type -> largest relative difference of the perplexity."""

EXACT_CACHE = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")
"""Keys and values in float32, as in Transformers; by default they are in float16."""


def main(folder: Path, programs: Path) -> int:
    reference = json.loads((folder / "reference.json").read_text())
    prompts = json.loads((folder / "prompts.json").read_text())
    failed = 0
    print("| checkpoint | type | architecture | equal texts | perplexity | Transformers | |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, expected in reference.items():
        if "gguf" in expected["refused"]:
            print(f"| {name} | | | | | | refused: {expected['refused']['gguf']} |")
            continue
        for kind, limit in LIMITS.items():
            file = folder / f"{name}-{kind}.gguf"
            if not file.is_file():
                continue
            equal = ""
            if expected["texts"] and kind == "f32":
                texts = [completion(programs, file, prompt) for prompt in prompts]
                same = sum(a == b for a, b in zip(texts, expected["texts"], strict=True))
                failed += same < len(prompts)
                equal = f"{same} of {len(prompts)}"
            text, windows = folder / "text.txt", expected["windows"]
            value, architecture = perplexity(programs, file, text, windows)
            change = value / expected["perplexity"] - 1
            failed += not abs(change) < limit
            print(
                f"| {name} | {kind} | {architecture} | {equal} | {value:.4f} | "
                f"{expected['perplexity']:.4f} | {change:+.3%} |",
                flush=True,
            )
    failed += tokens(folder, programs)
    speeds(folder, programs, ["dense", "uniform", "per_layer"])
    return int(failed > 0)


def run(program: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, errors="replace")


def completion(programs: Path, file: Path, prompt: str) -> str:
    """The greedy continuation of a prompt."""
    done = run(
        programs / "llama-completion", "-m", file, "-p", prompt, "-n", NEW_TOKENS, "-t", 1,
        "--temp", 0, "-no-cnv", "--no-display-prompt", "--no-escape", "--no-warmup",
        "--simple-io", *EXACT_CACHE,
    )  # fmt: skip
    text, end, _ = done.stdout.rpartition(" [end of text]")
    return text if end else done.stdout.removesuffix("\n\n")


def perplexity(programs: Path, file: Path, text: Path, windows: int) -> tuple[float, str]:
    """The perplexity and the architecture that llama.cpp names."""
    done = run(
        programs / "llama-perplexity", "-m", file, "-f", text, "-c", WINDOW, "-b", WINDOW,
        "--chunks", windows, "-t", 1, "--no-warmup", "-v", *EXACT_CACHE,
    )  # fmt: skip
    output = done.stdout + done.stderr
    value = re.search(r"Final estimate: PPL = ([\d.]+)", output)
    architecture = re.search(r"general.architecture str\s*= (\S+)", output)
    if value is None:
        raise SystemExit(f"{file}: no perplexity in:\n{output[-2000:]}")
    return float(value[1]), architecture[1] if architecture else "?"


def tokens(folder: Path, programs: Path) -> int:
    """Compares the tokens of a text under each pre-tokenizer; how many differ."""
    reference, failed = json.loads((folder / "tokens.json").read_text()), 0
    print("\n| pre-tokenizer | tokens |\n| --- | --- |")
    (folder / "sample.txt").write_bytes(reference.pop("text").encode())
    for name, expected in reference.items():
        file = folder / f"tokenizer-{name}.gguf"
        options = ("-m", file, "-f", folder / "sample.txt", "--ids", "--log-disable", "--no-bos")
        found = json.loads(run(programs / "llama-tokenize", *options).stdout)
        failed += found != expected
        print(f"| {name} | {'equal' if found == expected else 'differ'}: {len(expected)} |")
    return failed


def speeds(folder: Path, programs: Path, names: list[str]) -> None:
    """Tokens per second of the exports in f32 and q8_0, in turns in one run, medians."""
    print("\n| checkpoint | type | prefill of 512, tokens/s | | decode of 64, tokens/s | |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in LIMITS:
        rates: dict[tuple[str, int], list[float]] = {}
        for turn in range(TURNS + 1):
            for name in names:
                file = folder / f"{name}-{kind}.gguf"
                options = ("-p", 512, "-n", 64, "-t", 1, "-r", 1, "-o", "json")
                done = run(programs / "llama-bench", "-m", file, *options)
                for row in json.loads(done.stdout):
                    if turn:  # the first one reads the files
                        rates.setdefault((name, row["n_gen"]), []).append(row["avg_ts"])
        for name in names:
            cells = []
            for new in (0, 64):
                rate = median(rates[name, new])
                cells += [f"{rate:.1f}", f"{rate / median(rates['dense', new]):.2f}"]
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
