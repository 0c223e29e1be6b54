"""Are the prompts upstream's own, and is what can't be used said before anything runs?"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from adapruner.config import EvaluationConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_directory
from adapruner.evaluation.tasks import LOCAL, packaged_tasks, resolve, task_manager
from tests.adapruner.evaluation.task_rows import ROWS, write_rows

REAL = Path(__file__).parents[3] / "shared" / "data"


def upstream(name: str, rows: list[dict[str, Any]]) -> Any:
    """lm-eval's task by its packaged file, on `rows` instead of the hub's."""

    class OnRows(ConfigurableTask):
        def download(self, dataset_kwargs: Any = None, **kwargs: Any) -> None:
            data = Dataset.from_list(rows)
            self.dataset = {"train": data, "validation": data, "test": data}

    config = load_yaml(packaged_tasks()[name])
    config.pop("tag", None)
    return OnRows(config=config)


def asked(task: Any) -> list[Any]:
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(rank=0, world_size=1)
    return [(r.doc_id, r.idx, r.request_type, r.arguments) for r in task.instances]


def read(task: Any) -> list[Any]:
    docs = list(task.eval_docs)
    return [
        (task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)) for doc in docs
    ]


def local(name: str, data: Path, folder: Path, limit: int | None = None) -> Any:
    (folder / "rows").mkdir(parents=True)
    resolve(EvaluationConfig(tasks=(name,), data_dir=str(data), limit=limit), folder / "rows")
    return task_manager((name,), None, folder / "rows", folder).load([name])["tasks"][name]


@pytest.mark.parametrize("origin", ["made", "real"])
@pytest.mark.parametrize("name", LOCAL)
def test_prompts_choices_and_targets_are_upstreams(name: str, origin: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data") if origin == "made" else REAL
    if not data.is_dir():
        pytest.skip("no real rows here")
    with (data / "tasks" / f"{name}.jsonl").open() as file:
        rows = [json.loads(line) for line in islice(file, 60)]
    ours, theirs = local(name, data, tmp_path, 60), upstream(name, rows)
    assert asked(ours) == asked(theirs)
    assert read(ours) == read(theirs)
    assert len(asked(ours)) >= 2 * len(rows)
    for part in ("metric_list", "output_type", "target_delimiter", "metadata"):
        mine, its = ours.get_config(part), theirs.get_config(part)
        if part == "metadata":
            mine, its = mine["version"], its["version"]
        assert mine == its


def test_a_limit_takes_the_first_rows_and_another_batch_size_the_same(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data")
    hashes = []
    for batch_size in (1, 8):
        out = tmp_path / str(batch_size)
        out.mkdir()
        settings = {"tasks": ("piqa", "boolq"), "data_dir": str(data), "limit": 1}
        resolve(EvaluationConfig(batch_size=batch_size, **settings), out)
        assert len((out / "piqa.jsonl").read_text().splitlines()) == 1
        hashes.append(hash_directory(out))
    assert hashes[0] == hashes[1]
    path = data / "tasks" / "piqa.jsonl"
    path.write_text(path.read_text().replace("cage", "box", 1))
    resolve(EvaluationConfig(batch_size=8, **settings), out)
    assert hash_directory(out) != hashes[1]


def without(field: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: json.dumps({k: v for k, v in row.items() if k != field})


def having(field: str, value: Any) -> Callable[[dict[str, Any]], str]:
    return lambda row: json.dumps({**row, field: value})


@pytest.mark.parametrize(
    ("task", "spoil", "told"),
    [
        ("piqa", without("sol2"), "piqa.jsonl, line 2: field 'sol2' is missing"),
        ("boolq", without("passage"), "boolq.jsonl, line 2: field 'passage' is missing"),
        ("hellaswag", having("endings", "a"), "line 2: field 'endings' is 'a'; wanted a list"),
        ("hellaswag", having("label", "4"), "line 2: field 'label' is '4'; wanted one of '0', '1'"),
        ("winogrande", having("answer", 1), "line 2: field 'answer' is 1; wanted a text"),
        ("winogrande", having("sentence", "No."), "line 2: field 'sentence' has no '_'"),
        ("arc_easy", having("choices", {"text": ["a"]}), "field 'choices.label' is missing"),
        ("arc_challenge", having("answerKey", "E"), "'answerKey' is 'E'; wanted one of 'A', 'B'"),
        ("openbookqa", having("choices", {"text": ["a"], "label": ["A", "B"]}), "1 texts for 2"),
        ("piqa", having("label", True), "line 2: field 'label' is True; wanted a whole number"),
        ("piqa", having("label", -1), "line 2: field 'label' is -1; wanted one of 0, 1"),
        ("piqa", lambda _: "[1]", "piqa.jsonl, line 2: not a JSON object"),
        ("piqa", lambda _: "{", "piqa.jsonl, line 2: not a JSON object"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    task: str, spoil: Callable[[dict[str, Any]], str], told: str, tmp_path: Path
) -> None:
    data = write_rows(tmp_path)
    first, second, *_ = ROWS[task]
    path = data / "tasks" / f"{task}.jsonl"
    path.write_text(json.dumps(first) + "\n" + spoil(second) + "\n")
    with pytest.raises(UserError) as refused:
        resolve(EvaluationConfig(tasks=(task,), data_dir=str(data)), tmp_path)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tasks": ["arc_esay"]}, "'arc_esay' is not known to lm-eval; did you mean 'arc_easy'?"),
        ({"tasks": ["pika"], "data_dir": "data"}, "did you mean 'piqa'"),
        ({"tasks": ["lambada_openai"], "data_dir": "data"}, "leave out data_dir"),
        ({"tasks": ["boolq"], "data_dir": "data"}, "'boolq' has no file data/tasks/boolq.jsonl"),
        ({"tasks": ["piqa"], "data_dir": "data"}, "data/tasks/piqa.jsonl holds no rows; wanted"),
        ({"tasks": ["piqa"], "data_dir": "away"}, "evaluation.data_dir: no folder away"),
        ({"tasks": ["piqa"], "tasks_dir": "away"}, "evaluation.tasks_dir: no folder away"),
        ({"tasks": ["maid"], "tasks_dir": "own"}, "did you mean 'made'"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(
    settings: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("data/tasks", "own"):
        Path(folder).mkdir(parents=True)
    Path("data/tasks/piqa.jsonl").write_text("\n")
    Path("own/made.yaml").write_text("task: made\n")
    with pytest.raises(UserError) as refused:
        resolve(EvaluationConfig.model_validate(settings), tmp_path)
    assert told in str(refused.value)


def test_names_of_tasks_groups_and_tags_are_known(tmp_path: Path) -> None:
    resolve(EvaluationConfig(tasks=("lambada_openai", "mmlu", "ai2_arc")), tmp_path)
    assert json.loads((tmp_path / "tasks.json").read_text())["lm_eval"]
    assert set(LOCAL) < set(packaged_tasks())
    assert not {"mmlu", "ai2_arc"} & set(packaged_tasks())


def test_task_files_of_a_folder_are_told_apart_by_content(tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    own.mkdir()
    out.mkdir()
    settings = EvaluationConfig(tasks=("made",), tasks_dir=str(own))

    def found() -> str:
        resolve(settings, out)
        return hash_directory(out)

    (own / "made.yaml").write_text("task: made\ndoc_to_text: a\n")
    before = found()
    (own / "made.yaml").write_text("task: made\ndoc_to_text: b\n")
    after = found()
    assert after != before
    (own / "tools" / "__pycache__").mkdir(parents=True)
    (own / "tools" / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"by the import")
    assert found() == after
    with pytest.raises(ValueError, match="give one"):
        EvaluationConfig(tasks_dir="a", data_dir="b")
