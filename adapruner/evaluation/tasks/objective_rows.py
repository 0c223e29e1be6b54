"""Rows for the task margin: drawn from training or validation splits, never evaluated ones."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from adapruner.config import EvaluationConfig, RunConfig, SearchConfig
from adapruner.config.parsing import nearest
from adapruner.errors import UserError, first_line
from adapruner.evaluation.tasks.local_rows import local_rows
from adapruner.evaluation.tasks.selection import (
    BATCH_SIZE,
    check_local,
    packaged_tasks,
    task_manager,
)
from adapruner.files import Artifact, write_json

T = TypeVar("T")

MIN_ROWS = 2
"""Rows of a task: one for the trials, one held out."""


class ObjectiveTasks(Artifact):
    """All that the task margin depends on, except for the rows, which are in files beside this one.

    `lm_eval` is lm-eval's version, None without tasks. `max_length` is that of evaluation, in
    tokens.
    """

    FILE: ClassVar[str] = "objective_tasks.json"

    tasks: tuple[str, ...] = ()
    lm_eval: str | None = None
    max_length: int = EvaluationConfig.model_fields["max_length"].default


def resolve_objective_tasks(
    config: RunConfig, tasks: Path, out: Path, *, is_used: bool = True
) -> ObjectiveTasks:
    """Writes `objective_tasks.json`, `batch_size.json` and `<task>.jsonl` with the drawn rows.

    `tasks` is the directory of `resolve_tasks`. Where no search uses the rows, none are read and
    the result is that without tasks. Raises UserError for an unknown task, for missing
    or invalid rows, and for rows that are evaluated.
    """
    search, evaluation = config.search, config.evaluation
    resolved = ObjectiveTasks()
    if search.tasks and is_used:
        _check_names(search)
        for task in search.tasks:
            lines = "".join(_drawn_lines(task, search, config.seed))
            (out / f"{task}.jsonl").write_text(lines, encoding="utf-8")
        # From the hub, `unscored_split` has chosen another split than the evaluated one.
        if search.rows_dir is not None or evaluation.data_dir is not None:
            _check_disjoint(search, evaluation, tasks, out)
        resolved = ObjectiveTasks(
            tasks=search.tasks, lm_eval=version("lm_eval"), max_length=evaluation.max_length
        )
    resolved.write(out)
    write_json(out / BATCH_SIZE, evaluation.batch_size)
    return resolved


def unscored_split(task: Any) -> str:
    """The training split of lm-eval's `task`, else its validation split, unless it is scored.

    Raises UserError where there is neither.
    """
    splits = [task.get_config(f"{kind}_split") for kind in ("training", "validation", "test")]
    scored = splits[2] or splits[1]
    for split in splits[:2]:
        if split and split != scored:
            return str(split)
    raise UserError(
        f"search.tasks: '{task.task_name}' has no training or validation split beside the split "
        f"'{scored}', which is evaluated; give rows in search.rows_dir, or leave out the task"
    )


def drawn(rows: Sequence[T], count: int, seed: int, task: str) -> list[T]:
    """At most `count` of the `rows`, in random order."""
    return random.Random(f"{seed}:objective:{task}").sample(rows, min(count, len(rows)))


def drawn_from_split(task: Any, count: int, seed: int) -> list[str]:
    """At most `count` rows of the unscored split of lm-eval's `task`, one line of JSON each."""
    from adapruner.evaluation.tasks.questions import check_choices

    check_choices(task)
    rows = task.dataset[unscored_split(task)]
    numbers = drawn(range(len(rows)), count, seed, task.task_name)
    return [json.dumps(rows[number], ensure_ascii=False) + "\n" for number in numbers]


def _check_names(search: SearchConfig) -> None:
    if search.rows_dir is not None:
        check_local(search.tasks, Path(search.rows_dir), "search.rows_dir")
        return
    names = packaged_tasks()
    for task in search.tasks:
        if task not in names:
            raise UserError(
                f"search.tasks: '{task}' is not a single task of lm-eval"
                f"{nearest(task, sorted(names))[:300]}"
            )


def _drawn_lines(task: str, search: SearchConfig, seed: int) -> list[str]:
    if search.rows_dir is None:
        return _hub_lines(task, search.rows, seed)
    lines = list(dict.fromkeys(local_rows(task, Path(search.rows_dir), "search.rows_dir")))
    if len(lines) < MIN_ROWS:
        raise UserError(
            f"search.rows_dir: '{task}' has {len(lines)} distinct rows; expected at least "
            f"{MIN_ROWS}, as one half is held out"
        )
    return drawn(lines, search.rows, seed, task)


def _hub_lines(name: str, count: int, seed: int) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            task = task_manager((name,), None, folder / "rows", folder).load([name])["tasks"][name]
        except Exception as error:  # of the hub, of the network, of a task's own code
            raise UserError(
                f"search.tasks: rows of '{name}' can't be read from the hub "
                f"({type(error).__name__}: {first_line(error)}); give them in search.rows_dir"
            ) from None
        return drawn_from_split(task, count, seed)


def _check_disjoint(
    search: SearchConfig, evaluation: EvaluationConfig, tasks: Path, out: Path
) -> None:
    """Raises UserError where a drawn row has prompt and right answer of an evaluated row."""
    from adapruner.evaluation.tasks.questions import read_questions

    if evaluation.tasks and evaluation.tasks_dir is not None:
        raise UserError(
            "search.tasks: rows can't be compared with those of evaluation.tasks_dir, which may be "
            "the same; evaluate lm-eval's tasks, or leave out search.tasks"
        )
    for task in set(evaluation.tasks) - set(packaged_tasks()):
        raise UserError(
            f"search.tasks: rows can't be compared with those of the group '{task}' in "
            "evaluation.tasks; list its tasks by name"
        )
    both = tuple(task for task in search.tasks if task in evaluation.tasks)
    for task in both:
        ours = read_questions((task,), out)[task]
        evaluated = _evaluated(task, tasks, evaluation.limit)
        if shared := [question for question in ours if question.right in evaluated]:
            example = " ".join("".join(shared[0].right).split())
            raise UserError(
                f"search.tasks: {len(shared)} of {len(ours)} rows of '{task}' are evaluated too, "
                f"such as {example!r:.100}; remove evaluated rows from search.rows_dir, or leave "
                f"'{task}' out of evaluation.tasks or search.tasks"
            )


def _evaluated(task: str, tasks: Path, limit: int | None) -> set[tuple[str, str]]:
    """Prompt and right answer of every row that is evaluated, local or from the hub."""
    from adapruner.evaluation.tasks.questions import read_questions

    try:
        return {question.right for question in read_questions((task,), tasks, limit)[task]}
    except Exception as error:
        raise UserError(
            f"search.tasks: the rows of '{task}' can't be compared with the evaluated ones "
            f"({type(error).__name__}: {first_line(error)}); give these in evaluation.data_dir"
        ) from None
