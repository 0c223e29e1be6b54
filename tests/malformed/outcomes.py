"""The one assertion of the corpus, and how many examples of each kind are drawn."""

from __future__ import annotations

import io
import os
import resource
import time
from collections.abc import Callable, Collection
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from hypothesis import HealthCheck, currently_in_test_context, event, settings

from pipelines.errors import one_line_errors

SECONDS = 10.0
MOST_KIB = 1 << 20
"""By which the peak memory of this process may grow."""

PROGRESS = ("dequantising ", "Converting and de-quantizing ")
"""How lines of progress begin, before the input may turn out to be invalid."""

TIMES = int(os.environ.get("MALFORMED_TIMES", "1"))
"""A factor of all numbers of examples, to look for more than a run of all tests can."""


def examples(count: int) -> settings:
    """The settings of a test that draws `count` examples, the same ones in every run."""
    return settings(
        max_examples=count * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def is_refused(call: Callable[[], object], folder: Path, accepts: Collection[int] = (0,)) -> bool:
    """Whether `call` ends as a command ends for a mistake of the user; False where it accepts.

    A refusal is exit code 2 and one line on standard error, and leaves the files in `folder` as
    they were. An accepting command returns, or exits with one of `accepts`. Anything else fails.
    """
    before, start = _files(folder), time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    errors, code = io.StringIO(), 0
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        try:
            with one_line_errors():
                call()
        except SystemExit as end:
            code = int(end.code or 0)
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_KIB
    if currently_in_test_context():
        event("refused" if code == 2 else "accepted")
    if code in accepts:
        return False
    assert code == 2, errors.getvalue()
    *progress, line = errors.getvalue().splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert all(text.startswith(PROGRESS) for text in filter(None, progress)), progress
    assert _files(folder) == before
    return True


def _files(folder: Path) -> list[tuple[str, int]]:
    """Name and size of everything below a folder."""
    return sorted((str(path), path.lstat().st_size) for path in folder.rglob("*"))
