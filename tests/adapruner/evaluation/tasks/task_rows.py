"""A few rows of each zero-shot task, written for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lettered(question: str, field: str, *choices: str, key: str) -> dict[str, Any]:
    labels = [chr(65 + i) for i in range(len(choices))]
    return {field: question, "choices": {"text": list(choices), "label": labels}, "answerKey": key}


SCIENCE = [
    lettered("What melts ice?", "question", "heat", "a loud noise", "dark", key="A"),
    lettered("Which is a mammal?", "question", "a whale", "a trout", "a hen", "an ant", key="A"),
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "piqa": [
        {"goal": "Clean a cage", "sol1": "Use soap.", "sol2": "Use soap and fire.", "label": 0},
        {"goal": "Cool the tea", "sol1": "Boil it again.", "sol2": "Wait.", "label": 1},
    ],
    "boolq": [
        {"question": "is rain wet", "passage": "Rain -- Rain is water.", "label": 1},
        {"question": "is snow warm", "passage": "Snow -- Snow is ice, é.", "label": 0},
    ],
    "hellaswag": [
        {
            "activity_label": "Baking",
            "ctx_a": "A man opens an oven [title] slowly.",
            "ctx_b": "he",
            "endings": ["takes out  a loaf.", "flies off [sub] home.", "sings.", "is a hen."],
            "label": "0",
        },
        {
            "activity_label": "Rowing",
            "ctx_a": "Two women sit in a boat.",
            "ctx_b": "they",
            "endings": ["row.", "melt.", "bark.", "rust."],
            "label": "0",
        },
    ],
    "winogrande": [
        {"sentence": "Ann fed Bo as _ was ill.", "option1": "Ann", "option2": "Bo", "answer": "2"},
        {"sentence": "The _ fell.", "option1": "cup", "option2": "sky", "answer": "1"},
    ],
    "arc_easy": SCIENCE,
    "arc_challenge": SCIENCE[::-1],
    "openbookqa": [
        lettered("Fog is likely around", "question_stem", "a marsh", "a fire", key="A"),
        lettered("The sun gives", "question_stem", "light", "cold", "sand", "ink", key="A"),
    ],
}


def write_rows(folder: Path) -> Path:
    """`folder`, laid out as `evaluation.data_dir`, with the rows of every task."""
    (folder / "tasks").mkdir(parents=True)
    for task, rows in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "tasks" / f"{task}.jsonl").write_text(text)
    return folder
