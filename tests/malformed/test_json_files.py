"""Reports that commands read, and the JSON files that stages read."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from adapruner.files import Artifact
from adapruner.models.structures import Structures, describe_model
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import apply
from adapruner.search.results import Trials
from pipelines.cli.main import main
from tests.adapruner.pruning.plans import plan_for, plan_with_subsets
from tests.adapruner.report.reports import (
    build,
    pool_summary,
    settings,
    sparse_report,
    write_stages,
)
from tests.adapruner.report.searches import trials
from tests.malformed.mutations import (
    ODD,
    WRONG,
    WRONG_JSON,
    as_json,
    with_characters,
    with_key,
    with_value,
)
from tests.malformed.outcomes import examples, is_refused
from tests.models import small_model


def _reports() -> list[dict[str, Any]]:
    """A report with everything, and one of a sparse model."""
    limits = {"size_ratio": 0.81, "task_retention": 0.5, "prefill_speedup": 1.0}
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        whole = build(write_stages(Path(one, "stages")), settings(limits=limits))
        return [json.loads(json.dumps(r)) for r in (whole, sparse_report(Path(two)))]


REPORTS = _reports()


def report_is_refused(content: str | bytes, folder: Path, command: str, other: Path | None) -> bool:
    file = folder / "report.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {
        "gate": ["--set", "evaluation.gate.size_ratio=0.9"],
        "report": ["-o", str(folder / "page.html"), *([str(other)] if other else [])],
    }
    arguments = [command, str(file), *options[command]]
    refused = is_refused(lambda: main(arguments, standalone_mode=False), folder, accepts=(0, 3))
    (folder / "page.html").unlink(missing_ok=True)
    return refused


changed_reports: st.SearchStrategy[str | bytes] = st.sampled_from(REPORTS).flatmap(
    lambda valid: st.one_of(
        with_value(valid, ODD + WRONG + WRONG_JSON),
        with_key(valid),
        with_characters(as_json(valid)),
        st.binary(max_size=40),
    )
)


@given(content=changed_reports)
@examples(80)
def test_changed_reports_are_refused_or_checked(content: str | bytes, tmp_path: Path) -> None:
    report_is_refused(content, tmp_path, "gate", None)


@given(content=changed_reports, several=st.booleans())
@examples(8)  # a page takes a second: its charts
def test_changed_reports_are_refused_or_shown(
    content: str | bytes, several: bool, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text(as_json(REPORTS[0]))
    report_is_refused(content, tmp_path, "report", other if several else None)


@given(data=st.data(), command=st.sampled_from(("gate", "report")))
@examples(40)
def test_a_report_without_what_every_report_has_is_refused(
    tmp_path: Path, data: st.DataObject, command: str
) -> None:
    name = data.draw(st.sampled_from(("name", "metrics", "params", "plan", "provenance", "gate")))
    wrong = data.draw(st.sampled_from(("7", *(text for text in WRONG if text[0] == "["))))
    text = as_json(REPORTS[0] | {name: "placeholder"}).replace('"placeholder"', wrong)
    assert report_is_refused(text, tmp_path, command, None)


LLAMA = small_model("llama")
STRUCTURES: Structures = describe_model(LLAMA)
PLANS = [
    json.loads(plan.model_dump_json())
    for plan in (plan_for(LLAMA, "ragged"), plan_for(LLAMA, "channels"), plan_with_subsets(LLAMA))
]
RANGES = (
    "",
    "-",
    "0-",
    "1-0",
    "0,0",
    "3,1",
    "0-99999999999",
    "0-" + "9" * 5000,
    "9" * 5000,
    "٣",
    "0-3,5,",
)


def apply_plan(folder: Path) -> None:
    """A plan that is read is the same when it is written; one that fits the model cuts it."""
    plan = PruningPlan.read(folder)
    assert PruningPlan.model_validate_json(plan.model_dump_json()) == plan
    apply(small_model("llama"), plan)


@example(content='{"format": 1, "model_type": "\\ud800"}')
@given(
    content=st.sampled_from(PLANS).flatmap(
        lambda valid: st.one_of(
            with_value(valid, ODD + WRONG + WRONG_JSON + tuple(map(json.dumps, RANGES))),
            with_key(valid),
            with_characters(as_json(valid)),
        )
    )
)
@examples(120)
def test_changed_plans_are_refused_or_applied(content: str | bytes, tmp_path: Path) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "plan.json").write_bytes(data)
    is_refused(lambda: apply_plan(tmp_path), tmp_path)


@given(
    layer=st.integers(0, 3),
    field=st.sampled_from(("mlp_channels", "query_heads")),
    ranges=st.sampled_from(RANGES),
)
@examples(30)
def test_ranges_that_are_no_indices_of_the_model_are_refused(
    layer: int, field: str, ranges: str, tmp_path: Path
) -> None:
    plan = json.loads(json.dumps(PLANS[0]))
    plan["layers"][layer][field] = ranges
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert is_refused(lambda: apply_plan(tmp_path), tmp_path)


ARTIFACTS: list[Artifact] = [pool_summary(), Trials(trials=trials(3))]


@given(
    artifact=st.sampled_from(ARTIFACTS).flatmap(
        lambda valid: st.tuples(
            st.just(type(valid)),
            st.one_of(
                with_value(valid.model_dump(mode="json"), ODD + WRONG),
                with_key(valid.model_dump(mode="json")),
                with_characters(as_json(valid.model_dump(mode="json"))),
            ),
        )
    )
)
@examples(80)
def test_changed_results_of_stages_are_refused_or_the_same_when_written(
    artifact: tuple[type[Artifact], str | bytes], tmp_path: Path
) -> None:
    kind, content = artifact
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / kind.FILE).write_bytes(data)

    def read() -> None:
        value = kind.read(tmp_path)
        written = json.loads(json.dumps(value.model_dump(mode="json")))
        assert repr(kind.model_validate(written)) == repr(value)  # NaN is not equal to itself

    is_refused(read, tmp_path)
