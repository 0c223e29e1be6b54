"""Strategies: valid JSON and YAML with a few places changed, and valid bytes with a few changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml
from hypothesis import strategies as st

PLACE = "placeholder{}x"
"""Stands in a mapping for a text that is no value of its own until the mapping was written."""

WRONG = (
    "[[[]]]", '{"a": [1, {"b": null}]}', "[" * 2000 + "]" * 2000,
    '{"a":' * 2000 + "1" + "}" * 2000,
)  # fmt: skip
"""JSON and YAML that is no valid value of any setting."""

WRONG_JSON = ("NaN", "-Infinity", "1e999")
"""In YAML these are texts."""

ODD = (
    "null", "true", "false", "0", "-1", "1.5", "1e308", "1" * 5000, "9223372036854775808", "{}",
    "[]", '""', '" "', '"\\u0000"', '"\\ud800"', '"\\u001b[2J\\u0007"', '"\\r\\n\\u2028x"',
    '"[/red]"',
    '"../../etc/passwd"', '"/dev/zero"', '"' + "x" * 5000 + '"', '"0-99999999999"', '"nan"',
    '"{{ 1 / 0 }}"', "1e999", "[null]", '["a", 1]', '{"": ""}', '{"\\ud800": 1}',
)  # fmt: skip
"""JSON that is a valid value of some settings, and of few."""

WRONG_YAML = (
    ".nan", "-.inf", "!!python/object:os.system x", "!!python/object/apply:os.system [id]",
    "&a [*a]", "&a {b: *a}", "*missing", "!!int x", "!!float x", "!!bool x", "!!timestamp x",
    "!!binary x", "!!null {}", "!!set [a]", "!!omap [a]", "!!str [a]", "!own x", "!!int 0x",
    "2001-99-99", "2001-01-01 99:99:99", "{[1]: 2}", "{? {a: b} : c}", "{a: 1, a: 2}", "{<<: 1}",
    "{<<: [1]}", "@a", "`a", "%a", "'a", '"\\q"', "[", "]", "}", "a: b: c", "? ", "\x00", "\x01",
    "\ud800", "{2001-01-01: 1}", "{!!binary aa==: 1}", "{null: 1}", "{.nan: 1}",
)  # fmt: skip
ODD_YAML = ("~", "2001-01-01", "!!binary aa==", "1:30", "0x1F", "0o9", "1_0", "|", ">", "- a", "#")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in nested mappings and lists, but that of the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def replaced(value: Any, path: Sequence[Any], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change`, called with a container and a key, has changed the place."""
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return value


def as_json(value: Any) -> str:
    """The text of a file."""
    return json.dumps(value, indent=1)


def as_yaml(value: Any) -> str:
    """The text of a file."""
    return str(yaml.safe_dump(value, sort_keys=False))


@st.composite
def with_value(
    draw: st.DrawFn, valid: Any, texts: Sequence[str], write: Callable[[Any], str] = as_json
) -> str:
    """`valid` as text, with one of `texts` in place of one value or more."""
    changes = []
    for number in range(draw(st.sampled_from((1, 1, 1, 2)))):
        path = draw(st.sampled_from([p for p in places(valid) if _holds(valid, p)]))
        place = PLACE.format(number)
        valid = replaced(valid, path, lambda holder, key, text=place: holder.__setitem__(key, text))
        changes.append((place, draw(st.sampled_from(texts))))
    text = write(valid)
    for place, change in changes:
        text = text.replace(f'"{place}"', change).replace(place, change)
    return text


@st.composite
def with_key(draw: st.DrawFn, valid: Any, write: Callable[[Any], str] = as_json) -> str:
    """`valid` as text, with one key that is renamed or removed, or an item of a list removed."""
    path = draw(st.sampled_from(list(places(valid))))
    name = draw(st.sampled_from(("", "x", "\x07", "[/b]", None)))

    def change(holder: Any, key: Any) -> None:
        value = holder.pop(key)
        if name is not None and isinstance(holder, dict):
            holder[f"{key}{name}"[1 if name == "" else 0 :]] = value

    return write(replaced(valid, path, change))


@st.composite
def with_characters(draw: st.DrawFn, text: str) -> bytes:
    """A text that is cut, or has a part removed, repeated or replaced; also no UTF-8."""
    data = text.encode("utf-8", "surrogatepass")
    signs = draw(st.text("{}[],:&*!|>'\"#%@` \n\t-?\x1b\x85")).encode()
    start = draw(st.integers(0, len(data)))
    end = min(len(data), start + draw(st.integers(0, 40)))
    return draw(
        st.sampled_from(
            (
                data[:start],
                data[:start] + data[end:],
                data[:end] + data[start:],
                data[:start] + draw(st.binary(max_size=8)) + data[end:],
                data[:start] + signs + data[end:],
            )
        )
    )


@st.composite
def with_bytes(draw: st.DrawFn, data: bytes, head: int) -> bytes:
    """Bytes of which some among the first `head` are changed, or whose end is missing."""
    if draw(st.booleans()):
        return data[: draw(st.integers(0, len(data) - 1))]
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(head, len(data)) - 9))
        size = draw(st.sampled_from((1, 1, 2, 4, 8)))
        number = draw(st.sampled_from((0, 1, 2**8 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)))
        chosen = draw(st.one_of(st.just(number), st.integers(0, 2**64 - 1)))
        changed[at : at + size] = (chosen % 256**size).to_bytes(size, "little")
    return bytes(changed)


def _holds(value: Any, path: Sequence[Any]) -> bool:
    """Whether an earlier change has left a place there."""
    return not str(path[-1]).startswith("placeholder")
