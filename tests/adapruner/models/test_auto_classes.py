"""Registration of the per-layer classes, and that nothing is imported without it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models import auto_classes, modeling
from adapruner.models.families import FAMILIES
from adapruner.models.storage.checkpoint import save_checkpoint
from tests.adapruner.models.checkpoints import MLP_WIDTHS, WIDTHS, per_layer_model
from tests.models import small_model

ROOT = Path(__file__).parents[3]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_registration_is_idempotent() -> None:
    importlib.reload(auto_classes)
    for family in FAMILIES.values():
        config = AutoConfig.for_model(
            family.per_layer_type, num_hidden_layers=0, vocab_size=8, pad_token_id=0
        )
        assert type(config) is getattr(modeling, family.per_layer_config)
        model = AutoModelForCausalLM.from_config(config)
        assert type(model) is getattr(modeling, family.per_layer_architecture)


def test_a_stock_config_with_equal_layers_gives_the_stock_class() -> None:
    for family in FAMILIES.values():
        config = AutoConfig.for_model(
            family.model_type, num_hidden_layers=0, vocab_size=8, pad_token_id=0
        )
        model = AutoModelForCausalLM.from_config(config)
        assert type(model) is getattr(transformers, family.architecture)


@pytest.mark.parametrize("widths", [WIDTHS, MLP_WIDTHS])
def test_auto_classes_load_a_checkpoint_without_its_code(
    widths: dict[int, dict[str, int]], tmp_path: Path
) -> None:
    stock, dense, out = small_model("llama"), tmp_path / "dense", tmp_path / "out"
    stock.save_pretrained(dense)
    out.mkdir()
    save_checkpoint(per_layer_model(stock, widths), dense, out)
    code = (
        "import sys, adapruner.auto_classes; from transformers import AutoModelForCausalLM;"
        "print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__module__)"
    )
    done = run_python(code, str(out))
    assert done.stdout.strip() == "adapruner.models.modeling", done.stderr


@pytest.mark.parametrize("module", ["adapruner", "adapruner.config"])
def test_the_package_and_its_settings_import_neither_torch_nor_transformers(module: str) -> None:
    code = (
        "import importlib, sys; importlib.import_module(sys.argv[1]);"
        "assert not {'torch', 'transformers', 'zenml', 'mlflow'} & set(sys.modules)"
    )
    done = run_python(code, module)
    assert done.returncode == 0, done.stderr
