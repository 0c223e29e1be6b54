"""`<output_dir>/<name>/`: what a run leaves for people and for programs."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.zenml_support.materializer import link_or_copy
from steps.zenml_support.workspace import TIMING

MARK = "report.json"
COMPARISON = "comparison.json"


def directory_of(config: RunConfig) -> Path:
    """Where the results of this configuration go."""
    return Path(config.output_dir) / config.name


def check_target(config: RunConfig, mark: str = MARK) -> None:
    """Raises UserError when something stands at the target that no such run has left.

    `mark` is the file that tells what a compression (MARK) or a comparison (COMPARISON) left.
    """
    target = directory_of(config)
    try:
        names = [path.name for path in target.iterdir()]
        foreign = bool(names) and mark not in names
    except FileNotFoundError:
        foreign = False
    except NotADirectoryError:
        foreign = True
    if foreign:
        raise UserError(
            f"'{target}' holds something that is not a run's result of this kind and would be "
            "replaced; give the run another `name` or `output_dir`"
        )


def publish(
    config: RunConfig, report: Path, checkpoint: Path, registered: Mapping[str, Any]
) -> Path:
    """Put report, plan and checkpoint at the target, replacing an earlier run's as a whole.

    Weights are hard links where the file system allows: the same bytes, not a second copy. Of two
    runs that publish at once, the later one's result stays.
    """

    def fill(new: Path) -> None:
        untimed = shutil.ignore_patterns(TIMING)
        shutil.copytree(report, new, ignore=untimed)
        shutil.copytree(checkpoint, new / "checkpoint", ignore=untimed, copy_function=_link_weights)
        text = json.dumps(dict(registered), indent=2, sort_keys=True)
        (new / "model_version.json").write_text(text + "\n", encoding="utf-8")

    return _publish(config, MARK, fill)


def publish_comparison(config: RunConfig, files: Path) -> Path:
    """Put a comparison's files at the target, replacing an earlier comparison's as a whole."""
    untimed = shutil.ignore_patterns(TIMING)
    return _publish(config, COMPARISON, lambda new: shutil.copytree(files, new, ignore=untimed))


def _publish(config: RunConfig, mark: str, fill: Callable[[Path], object]) -> Path:
    """Replace what is at the target by what `fill` puts into the folder that it is given."""
    check_target(config, mark)
    target = directory_of(config).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{config.name}-", dir=target.parent))
    new, former = beside / "new", beside / "former"
    try:
        fill(new)
        _replace(target, new, former)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            beside.rmdir()  # stays where it holds a former result that could not be put back
        raise
    shutil.rmtree(beside, ignore_errors=True)
    return target


def _replace(target: Path, new: Path, former: Path) -> None:
    """Move `target`, where there is one, to `former` and `new` to `target`; or leave it there."""
    while True:
        with suppress(FileNotFoundError):
            target.rename(former)
        try:
            new.rename(target)
            return
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                # Another run's result came in between. It replaced the former, and is replaced.
                shutil.rmtree(former, ignore_errors=True)
                continue
            if former.exists():
                former.rename(target)
            raise


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        link_or_copy(source, target)
    else:
        shutil.copyfile(source, target)
