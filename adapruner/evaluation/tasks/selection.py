"""Zero-shot tasks: selection, check and definition.

A task's definition (prompt, choices, metrics) is always lm-eval's own file. Rows come from the hub
or, for the tasks in `local_rows.SCHEMAS`, from local files: then lm-eval reads a file of a few
lines that includes its own and replaces only the source of the data.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import yaml

from adapruner.config import EvaluationConfig
from adapruner.config.parsing import nearest
from adapruner.errors import UserError
from adapruner.evaluation.tasks.local_rows import SCHEMAS, local_rows
from adapruner.files import Artifact, read_json, write_json
from adapruner.hashing import hash_directory
from adapruner.progress import console

BATCH_SIZE = "batch_size.json"
"""Beside `tasks.json`; it sets the memory that tasks need, so that no content hash includes it."""

_NAMES = re.compile(
    rb"""^["']?(?P<key>task|group|tag)["']?\s*:[ \t]*["']?(?P<name>[^\s"'#\[\]]+)""", re.M
)


class TaskSelection(Artifact):
    """All that the scores of the selected tasks depend on, except for local rows.

    `lm_eval` is lm-eval's version, None without tasks; `tasks_dir` is the content hash of a folder
    of task files. Local rows are in files beside this one.
    """

    FILE: ClassVar[str] = "tasks.json"

    tasks: tuple[str, ...] = ()
    lm_eval: str | None = None
    tasks_dir: str | None = None


def resolve_tasks(evaluation: EvaluationConfig, out: Path) -> TaskSelection:
    """Checks the tasks and writes `tasks.json`, `batch_size.json` and `<task>.jsonl` of local rows.

    Of local files the first `limit` rows are checked and copied, so that `out` holds all that the
    score of a local task depends on. Raises UserError for an unknown task, and for missing or
    invalid rows.
    """
    selection = TaskSelection()
    if evaluation.tasks:
        folder_hash = None
        if evaluation.tasks_dir is not None:
            folder_hash = _hash_task_files(evaluation.tasks, evaluation.tasks_dir)
        elif evaluation.data_dir is not None:
            _copy_rows(evaluation, Path(evaluation.data_dir), out)
        else:
            _check_packaged(evaluation.tasks)
        selection = TaskSelection(
            tasks=evaluation.tasks, lm_eval=version("lm_eval"), tasks_dir=folder_hash
        )
    selection.write(out)
    write_json(out / BATCH_SIZE, evaluation.batch_size)
    return selection


def batch_size_of(tasks: Path) -> int:
    """The batch size that `resolve_tasks` wrote to the directory `tasks`."""
    return int(read_json(tasks / BATCH_SIZE))


def task_manager(names: tuple[str, ...], tasks_dir: str | None, rows: Path, scratch: Path) -> Any:
    """lm-eval's manager of the named tasks, with local rows where the folder `rows` has them.

    `rows` is the directory of `resolve_tasks`. Files for lm-eval are written to `scratch`, which
    must exist as long as the tasks are used. lm-eval's whole index is built only for names of
    groups, as it takes half a minute.
    """
    from lm_eval.tasks import TaskManager

    _hide_lm_eval_output()
    if tasks_dir is not None:
        return TaskManager(include_path=tasks_dir, include_defaults=False)
    files = packaged_tasks()
    for name in names:
        if name in files:
            config = definition(name, files[name], rows / f"{name}.jsonl", scratch / "cache")
            (scratch / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    has_groups = any(name not in files for name in names)
    return TaskManager(include_path=str(scratch), include_defaults=has_groups)


def _hide_lm_eval_output() -> None:
    """Silences lm-eval's log, and the bars of its libraries when the output is no terminal."""
    import datasets

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if not console.is_terminal:
        datasets.disable_progress_bars()


def definition(name: str, packaged: Path, rows: Path, cache: Path) -> dict[str, Any]:
    """lm-eval's definition of the task `name`: the packaged file, on the local `rows` if it exists.

    `cache` is the folder for the data sets that lm-eval makes of local rows.
    """
    config = {"include": str(packaged), "task": name}
    if not rows.is_file():
        return config
    split = SCHEMAS[name].split if name in SCHEMAS else "validation"
    splits: dict[str, str | None] = dict.fromkeys(
        ("training_split", "validation_split", "test_split", "fewshot_split")
    )
    return {
        **config,
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
    """Name -> file of lm-eval's own tasks, without groups of tasks.

    Searching the files' text takes a second, building lm-eval's index half a minute.
    """
    return {name: path for name, path in _packaged_names().items() if path is not None}


@cache
def _packaged_names() -> dict[str, Path | None]:
    return _names_in(_packaged_folder())


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    folders = spec.submodule_search_locations if spec else None
    assert folders, "lm-eval is one of the requirements"
    return Path(folders[0], "tasks")


def _names_in(folder: Path) -> dict[str, Path | None]:
    """Names that the task files in `folder` define -> the file, or None for groups and tags."""
    names: dict[str, Path | None] = {}
    for path in sorted(folder.rglob("*.yaml")):
        keys = [(m["key"], m["name"].decode()) for m in _NAMES.finditer(path.read_bytes())]
        is_group = any(key == b"group" for key, _ in keys)
        for key, name in keys:
            names.setdefault(name, path if key == b"task" and not is_group else None)
    return names


def _check_packaged(tasks: tuple[str, ...]) -> None:
    names = _packaged_names()
    for task in tasks:
        if task not in names and not _is_listed(task):
            raise UserError(_unknown(task, sorted(names), "lm-eval"))


def _is_listed(name: str) -> bool:
    """Whether a task file has `name` on a line of its own, as tags may be named in lists."""
    entry = re.compile(rb"""^[\s-]*["']?""" + re.escape(name).encode() + rb"""["']?\s*$""", re.M)
    texts = (path.read_bytes() for path in _packaged_folder().rglob("*.yaml"))
    return any(name.encode() in text and entry.search(text) for text in texts)


def _hash_task_files(tasks: tuple[str, ...], tasks_dir: str) -> str:
    """The content hash of a folder of task files, which must define all `tasks`."""
    folder = Path(tasks_dir)
    if not folder.is_dir():
        raise UserError(
            f"evaluation.tasks_dir: no folder {tasks_dir}; expected a folder of lm-eval task files"
        )
    names = _names_in(folder)
    for task in tasks:
        if task not in names:
            raise UserError(_unknown(task, sorted(names), f"the task files in {tasks_dir}"))
    return hash_directory(folder)


def _unknown(task: str, names: list[str], where: str) -> str:
    return f"evaluation.tasks: '{task}' is unknown to {where}{nearest(task, names)[:300]}"


def check_local(tasks: tuple[str, ...], folder: Path, setting: str) -> None:
    """Raises UserError if `folder`, the value of `setting`, is missing or can't hold the tasks."""
    section, key = setting.split(".")
    if not folder.is_dir():
        raise UserError(f"{setting}: no folder {folder}; expected a folder with tasks/*.jsonl")
    for task in tasks:
        if task not in SCHEMAS:
            raise UserError(
                f"{section}.tasks: '{task}' can't be read from local files (leave out {key} "
                f"to read it from the hub){nearest(task, sorted(SCHEMAS))}"
            )


def _copy_rows(evaluation: EvaluationConfig, folder: Path, out: Path) -> None:
    check_local(evaluation.tasks, folder, "evaluation.data_dir")
    for task in evaluation.tasks:
        lines = "".join(islice(local_rows(task, folder), evaluation.limit))
        (out / f"{task}.jsonl").write_text(lines, encoding="utf-8")
