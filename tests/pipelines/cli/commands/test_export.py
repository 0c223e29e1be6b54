from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from gguf import GGUFReader

from pipelines.cli.main import main
from tests.adapruner.conftest import write_tokenizer
from tests.adapruner.export.checkpoints import small, write


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "demo").mkdir()
    write(small("llama", "mlp"), tmp_path / "demo" / "checkpoint")
    return tmp_path / "demo"


def test_exports_of_a_run_are_in_its_folder(run: Path) -> None:
    for arguments, name in (
        (["--to", "gguf", "--type", "q8_0"], "demo-q8_0.gguf"),
        (["--to", "gguf"], "demo-f16.gguf"),
        (["--to", "decilm"], "demo-decilm"),
    ):
        result = CliRunner().invoke(main, ["export", str(run), *arguments])
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[-1] == str(run / "exports" / name)
    architecture = GGUFReader(run / "exports" / "demo-f16.gguf").fields["general.architecture"]
    assert architecture.contents() == "deci"
    assert (run / "exports" / "demo-decilm" / "config.json").is_file()


def test_an_export_of_a_checkpoint_is_beside_it_or_where_o_says(run: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(run / "checkpoint", tmp_path / "mine")
    for options, out in (([], "mine-decilm"), (["-o", str(tmp_path / "x")], "x")):
        arguments = ["export", str(checkpoint), "--to", "decilm", *options]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        assert (tmp_path / out / "config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gguf"], "kind WordLevel"),
        (["--to", "decilm", "--type", "f16"], "omit --type"),
        (["--to", "decilm", "-o", "absent/there"], "can't be written: No such file"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    run: Path, arguments: list[str], message: str
) -> None:
    write_tokenizer(run / "checkpoint")
    result = CliRunner().invoke(main, ["export", str(run), *arguments])
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not list((run / "exports").glob("*")) if (run / "exports").exists() else True


@pytest.mark.parametrize("folder", ["", "absent/model"])
def test_a_folder_that_is_no_checkpoint_is_refused(folder: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", str(tmp_path / folder), "--to", "gguf"])
    assert result.exit_code == 2
    assert "is not a checkpoint" in result.output
