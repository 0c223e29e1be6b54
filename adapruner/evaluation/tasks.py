"""Zero-shot tasks: which there are, where their rows come from, whether these can be used.

A task's definition (prompt, choices, metrics) is always lm-eval's own file. Rows come from the hub,
or for the tasks of `LOCAL` from `<data_dir>/tasks/<task>.jsonl`: then lm-eval is given a file of a
few lines that includes its own and replaces where the data come from, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from adapruner.config import EvaluationConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_directory
from adapruner.config.parsing import nearest

Row = dict[str, Any]
DESCRIPTION = "tasks.json"
BATCH_SIZE = "batch_size.json"

_NAMES = re.compile(
    rb"""^["']?(?P<key>task|group|tag)["']?\s*:[ \t]*["']?(?P<name>[^\s"'#\[\]]+)""", re.M
)


@dataclass(frozen=True)
class Schema:
    """What the local rows of a task hold: dotted field -> its types, and the answers a row takes.

    `split` is the split that lm-eval scores, `answer` the field of the right answer.
    """

    split: str
    fields: dict[str, tuple[type, ...]]
    answer: str
    answers: Callable[[Row], list[Any]]


def _fields(*texts: str, **others: tuple[type, ...]) -> dict[str, tuple[type, ...]]:
    return {**dict.fromkeys(texts, (str,)), **others}


_LETTERED = {"choices.text": (list,), "choices.label": (list,), "answerKey": (str,)}


def _labels(row: Row) -> list[Any]:
    labels: list[Any] = row["choices"]["label"]
    return labels


LOCAL: dict[str, Schema] = {
    "piqa": Schema(
        "validation", _fields("goal", "sol1", "sol2", label=(int,)), "label", lambda _: [0, 1]
    ),
    "boolq": Schema(
        "validation", _fields("question", "passage", label=(int,)), "label", lambda _: [0, 1]
    ),
    "hellaswag": Schema(
        "validation",
        _fields("activity_label", "ctx_a", "ctx_b", endings=(list,), label=(str,)),
        "label",
        lambda row: [str(i) for i in range(len(row["endings"]))],
    ),
    "winogrande": Schema(
        "validation",
        _fields("sentence", "option1", "option2", "answer"),
        "answer",
        lambda _: ["1", "2"],
    ),
    "arc_easy": Schema("test", {"question": (str,), **_LETTERED}, "answerKey", _labels),
    "arc_challenge": Schema("test", {"question": (str,), **_LETTERED}, "answerKey", _labels),
    "openbookqa": Schema("test", {"question_stem": (str,), **_LETTERED}, "answerKey", _labels),
}
"""The seven tasks of the papers, in their order of fields as the hub's data sets have them."""


def resolve(evaluation: EvaluationConfig, out: Path) -> None:
    """Writes to `out` what the tasks of `evaluation` are now: `tasks.json`, and local rows.

    `batch_size.json`, which no hash counts, is for the step that runs them.

    Of local files the rows that `limit` leaves are checked and copied, so that `out` holds all of
    a local task that a score depends on but lm-eval's own part, told by its version. Raises
    UserError for a task that is not known, and for rows that are absent or can't be used.
    """
    found: dict[str, Any] = {}
    if evaluation.tasks:
        found = {"tasks": list(evaluation.tasks), "lm_eval": version("lm_eval")}
        if evaluation.tasks_dir is not None:
            found["tasks_dir"] = _check_folder(evaluation.tasks, evaluation.tasks_dir)
        elif evaluation.data_dir is not None:
            _copy_rows(evaluation, Path(evaluation.data_dir), out)
        else:
            _check_packaged(evaluation.tasks)
    for name, value in ((DESCRIPTION, found), (BATCH_SIZE, evaluation.batch_size)):
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        (out / name).write_text(text, encoding="utf-8")


def batch_size(tasks: Path) -> int:
    """The batch size that `resolve` left in `tasks`."""
    return int((tasks / BATCH_SIZE).read_text(encoding="utf-8"))


def task_manager(names: tuple[str, ...], tasks_dir: str | None, local: Path, scratch: Path) -> Any:
    """lm-eval's manager of the named tasks, with the rows in `local` where there are any.

    `local` is what `resolve` wrote; files made for lm-eval go to `scratch`, which must stay as
    long as the tasks are used. Only for names of groups is lm-eval's whole index built (half a
    minute).
    """
    from lm_eval.tasks import TaskManager

    if tasks_dir is not None:
        return TaskManager(include_path=tasks_dir, include_defaults=False)
    files = packaged_tasks()
    for name in names:
        if name in files:
            config = definition(name, files[name], local / f"{name}.jsonl", scratch / "cache")
            (scratch / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    has_groups = any(name not in files for name in names)
    return TaskManager(include_path=str(scratch), include_defaults=has_groups)


def definition(name: str, packaged: Path, rows: Path, cache: Path) -> dict[str, Any]:
    """What lm-eval is given as task `name`: its own file; of local `rows`, with these as data."""
    own = {"include": str(packaged), "task": name}
    if not rows.is_file():
        return own
    split = LOCAL[name].split
    splits: dict[str, str | None] = dict.fromkeys(
        ("training_split", "validation_split", "test_split", "fewshot_split")
    )
    return {
        **own,
        **splits,
        f"{split}_split": split,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(rows.absolute())},
            "cache_dir": str(cache.absolute()),
        },
    }


def packaged_tasks() -> dict[str, Path]:
    """Name -> file of the tasks that lm-eval brings along; groups of tasks are not among them.

    Found by the files' text in a second; lm-eval's own index takes half a minute.
    """
    return {name: path for name, path in _packaged_names().items() if path is not None}


@cache
def _packaged_names() -> dict[str, Path | None]:
    return _named(_packaged_folder())


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    folders = spec.submodule_search_locations if spec else None
    assert folders, "lm-eval is one of the requirements"
    return Path(folders[0], "tasks")


def _named(folder: Path) -> dict[str, Path | None]:
    """Names that the task files of `folder` define, with the file of those that are one task."""
    names: dict[str, Path | None] = {}
    for path in sorted(folder.rglob("*.yaml")):
        keys = [(m["key"], m["name"].decode()) for m in _NAMES.finditer(path.read_bytes())]
        is_group = any(key == b"group" for key, _ in keys)
        for key, name in keys:
            names.setdefault(name, path if key == b"task" and not is_group else None)
    return names


def _check_packaged(names: tuple[str, ...]) -> None:
    known = _packaged_names()
    for name in names:
        if name not in known and not _is_listed(name):
            raise UserError(_unknown(name, sorted(known), "lm-eval"))


def _is_listed(name: str) -> bool:
    """Whether a task file has the name on a line of its own: tags may be named in lists."""
    entry = re.compile(rb"""^[\s-]*["']?""" + re.escape(name).encode() + rb"""["']?\s*$""", re.M)
    texts = (path.read_bytes() for path in _packaged_folder().rglob("*.yaml"))
    return any(name.encode() in text and entry.search(text) for text in texts)


def _check_folder(names: tuple[str, ...], given: str) -> str:
    """The content hash of a folder of task files in which all `names` are."""
    folder = Path(given)
    if not folder.is_dir():
        raise UserError(f"evaluation.tasks_dir: no folder {given}; give one of lm-eval task files")
    known = _named(folder)
    for name in names:
        if name not in known:
            raise UserError(_unknown(name, sorted(known), f"the task files of {given}"))
    return hash_directory(folder)


def _unknown(name: str, known: list[str], where: str) -> str:
    return f"evaluation.tasks: '{name}' is not known to {where}{nearest(name, known)[:300]}"


def _copy_rows(evaluation: EvaluationConfig, folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"evaluation.data_dir: no folder {folder}; wanted one with tasks/*.jsonl")
    for name in evaluation.tasks:
        if name not in LOCAL:
            raise UserError(
                f"evaluation.tasks: '{name}' can't be read from local files (leave out data_dir "
                f"to take it from the hub){nearest(name, sorted(LOCAL))}"
            )
    for name in evaluation.tasks:
        lines = list(islice(local_rows(name, folder), evaluation.limit))
        if not lines:
            raise UserError(
                f"{folder / 'tasks' / name}.jsonl holds no rows; wanted {_wanted(name)}"
            )
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def local_rows(task: str, folder: Path) -> Iterator[str]:
    """The lines of `<folder>/tasks/<task>.jsonl`, each checked, each with its line end.

    Raises UserError naming file, line and field of what can't be used.
    """
    path = folder / "tasks" / f"{task}.jsonl"
    if not path.is_file():
        raise UserError(
            f"evaluation.tasks: '{task}' has no file {path} in evaluation.data_dir; "
            f"wanted {_wanted(task)}"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                _check(line, LOCAL[task], f"{path}, line {number}")
                yield line.decode().rstrip("\r\n") + "\n"


def _check(line: bytes, schema: Schema, where: str) -> None:
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"{where}: not a JSON object on one line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object")
    for field, types in schema.fields.items():
        value = _get(row, field)
        if value is None:
            raise UserError(f"{where}: field '{field}' is missing")
        if not isinstance(value, types) or isinstance(value, bool):
            names = " or ".join(_KINDS[kind] for kind in types)
            raise UserError(f"{where}: field '{field}' is {value!r:.80}; wanted {names}")
    answers = schema.answers(row)
    if _get(row, schema.answer) not in answers:
        shown = ", ".join(map(repr, answers))
        raise UserError(
            f"{where}: field '{schema.answer}' is {row[schema.answer]!r}; wanted one of {shown}"
        )
    _check_choices(row, where)


def _check_choices(row: Row, where: str) -> None:
    choices = row.get("choices")
    if isinstance(choices, dict) and len(choices["text"]) != len(choices["label"]):
        raise UserError(
            f"{where}: field 'choices' has {len(choices['text'])} texts for "
            f"{len(choices['label'])} labels"
        )
    if "sentence" in row and "_" not in row["sentence"]:
        raise UserError(f"{where}: field 'sentence' has no '_' to put the options in")


_KINDS = {str: "a text", int: "a whole number", list: "a list"}


def _get(row: Any, field: str) -> Any:
    for part in field.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _wanted(task: str) -> str:
    return f"rows of {', '.join(LOCAL[task].fields)}"
