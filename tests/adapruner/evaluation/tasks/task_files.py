"""lm-eval task files on a few rows whose words the test tokenizer knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TASK = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {rows}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""

FILTERS = """
filter_list:
- {name: strict-match, filter: [{function: take_first}]}
- {name: none, filter: [{function: take_first}]}
"""

ROWS: list[dict[str, Any]] = [
    {"question": f"w{i + 50} w7", "choices": [f"w{i + 30}", f"w{i + 40}"], "label": i % 2}
    for i in range(6)
]


def write_task_files(folder: Path) -> Path:
    """`folder` with the tasks `made`, `filtered` and, whose rows are missing, `absent`."""
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "made.yaml").write_text(TASK.format(task="made", rows=rows))
    (folder / "filtered.yaml").write_text(TASK.format(task="filtered", rows=rows) + FILTERS)
    absent = TASK.format(task="absent", rows=folder / "away.jsonl")
    (folder / "absent.yaml").write_text(absent)
    return folder
