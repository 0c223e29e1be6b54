"""Fine-tuning by several processes is that of one, and ends where one of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.errors import UserError
from adapruner.models.checkpoint import load_model, save_checkpoint, stored_dtypes
from adapruner.pruning.surgery import apply
from adapruner.recovery.finetune import CHECKPOINT, RecoveryResult
from tests.adapruner.conftest import Workplace, write_tokenizer
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.recovery.requests import recovered, settings
from tests.models import small_model


def assert_same(one: Path, several: Path) -> None:
    """Curves and merged weights of two results are equal but for rounding."""
    curves = [RecoveryResult.read(folder).curve for folder in (one, several)]
    for expected, point in zip(*curves, strict=True):
        assert point.loss == pytest.approx(expected.loss, rel=1e-4)
        assert point.held_out == pytest.approx(expected.held_out, rel=1e-4)
    assert stored_dtypes(one / CHECKPOINT) == stored_dtypes(several / CHECKPOINT)
    models = [AutoModelForCausalLM.from_pretrained(f / CHECKPOINT) for f in (one, several)]
    expected, weights = (model.state_dict() for model in models)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4, msg=name)
