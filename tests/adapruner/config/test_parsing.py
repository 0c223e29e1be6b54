"""Errors of invalid settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError

FILE: dict[str, Any] = {
    "name": "mine", "model": {"source": "m"}, "calibration": {"source": "t.txt"},
    "registry": {"name": "r"},
}  # fmt: skip


def _calibration(**settings: Any) -> dict[str, Any]:
    return {"calibration": {"source": "t.txt", **settings}}


@pytest.mark.parametrize(
    ("changes", "setting", "hint"),
    [
        ({"search": 3}, "'search' is 3", ""),
        ({"search": {"trails": 3}}, "unknown key 'search.trails'", "'trials'"),
        ({"search": {"metric": "fischer"}}, "'search.metric' is 'fischer'", "'fisher'"),
        ({"reconstruction": {"method": "ridge"}}, "'reconstruction.method' is 'ridge'", "bias"),
        ({"finetune": {"method": "loras"}}, "'finetune.method' is 'loras'", "'lora'"),
        ({"pruning": {"ratio": 1.5}}, "'pruning.ratio' is 1.5", "less than 1"),
        ({"model": {}}, "'model.source' is missing", "required"),
        ({"calibration": {"source": []}}, "'calibration.source' is []", "list of at least one"),
        (_calibration(sequence_length=65, min_tokens=64), "'calibration'", "min_tokens"),
        (_calibration(shares=[1.0, 2.0]), "'calibration'", "one number for each"),
        (_calibration(shares=[0.0]), "'calibration'", "shares"),
        (_calibration(source=["a.txt", "b.txt"], shares=[0, 1]), "'calibration'", "above 0"),
        ({"finetune": {"shares": [1, 2]}}, "finetune.shares [1.0, 2.0]", "each of the 1 sources"),
        ({"finetune": {"shares": [1], "source": "f.txt"}}, "finetune.shares", "remove one"),
        ({"search": {"sampler": "best"}}, "'search.sampler' is 'best'", "PACKAGE.MODULE:NAME"),
        ({"registry": {"name": "r", "alias": "a.b"}}, "'registry.alias' is 'a.b'", ""),
        ({"evaluation": {"gate": {}}}, "'evaluation.gate'", "limit"),
        ({"registry": {"name": "r", "alias": "latest"}}, "'registry.alias' is 'latest'", "MLflow"),
    ],
)
def test_invalid_setting_is_named_with_its_value_and_a_hint(
    changes: dict[str, Any], setting: str, hint: str
) -> None:
    with pytest.raises(UserError) as error:
        parse_section(RunConfig, FILE | changes, "my.yaml")
    message = str(error.value)
    assert message.startswith("my.yaml: ")
    assert setting in message
    assert hint in message
    assert "\n" not in message


def test_all_invalid_settings_are_reported_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse_section(RunConfig, FILE | {"pruning": {"ratio": 2, "round_to": 0}}, "my.yaml")
    assert "pruning.ratio" in str(error.value)
    assert "pruning.round_to" in str(error.value)


def test_configuration_is_validated_without_torch_and_transformers() -> None:
    code = (
        "import sys; from adapruner.config import RunConfig; "
        f"RunConfig.model_validate({FILE | {'method': 'flap'}!r}); "
        "assert not {'torch', 'transformers', 'zenml', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
