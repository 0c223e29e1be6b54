"""English prose from a MediaWiki dump: the embedded default text, which needs no network.

gensim's wheel holds a shortened dump of the English Wikipedia (CC BY-SA). mwparserfromhell parses
the markup; this module selects the nodes that are prose. A paragraph with a gap, where a part can't
be rendered as words (a formula, an unknown template), is dropped as a whole: a sentence with a gap
distorts the probabilities of the words after it.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell import nodes

from adapruner.errors import UserError

PASSAGE_CHARACTERS = 1000
"""Minimum length of a passage, a run of whole paragraphs: about 220 tokens."""

_GAP = "\ufffc"
_LIST_ITEM = "\ufffd"
_SHORTEST_PARAGRAPH = 80

_SKIPPED_SECTIONS = frozenset(
    {"references", "external links", "see also", "further reading", "notes", "bibliography"}
    | {"footnotes", "citations", "sources", "works cited", "notes and references", "gallery"}
    | {"references and notes", "discography", "filmography", "publications", "other uses"}
    | {"selected bibliography"}
)
_DROPPED_TAGS = frozenset({"ref", "references", "gallery", "table", "imagemap", "timeline"})
_LIST_TAGS = frozenset({"li", "dd", "dt"})
_GAP_TAGS = frozenset({"math", "chem", "source", "syntaxhighlight", "pre", "score", "hiero"})
_NAMESPACES = re.compile(
    r"\s*:?\s*(file|image|category|media|wikt|wiktionary|[a-z]{2,3})\s*:", re.I
)

# Templates that are rendered as words: the parameter that holds the words, or the words.
_RENDERED_PARAMETER = {
    "lang": 2,
    "nowrap": 1,
    "transl": 2,
    "smaller": 1,
    "small": 1,
    "vanchor": 1,
    "nihongo": 1,
    "sc": 1,
    "as of": 1,
    "angbr": 1,
    "quote": 1,
    "formatnum": 1,
}
_RENDERED_WORDS = {
    "'s": "'s",
    "'": "'",
    "nbsp": " ",
    "thinsp": " ",
    "mdashb": "\u2014",
    "snd": " \u2013 ",
    "spaced ndash": " \u2013 ",
    "-": "",
    "clear": "",
}
# Templates without words of the sentence: sources, remarks of editors, pronunciations.
_DROPPED_TEMPLATE = re.compile(
    r"(cite|citation|cn$|fact$|sfn|efn|ref|r$|rp$|harv|vcite|#tag|note|inflation-fn|dubious|who$|"
    r"when$|which$|where$|clarify|vague|by whom|according|page needed|better|failed|unreliable|"
    r"relevance|weasel|qualify|full|update|dead|webarchive|wayback|ipa|respell|audio|pron|coord|"
    r"flagicon|anchor|use |pp-|good|featured|about|main|see|further|redirect|hatnote|infobox|"
    r"taxobox|.* icon$|en$|toc|bots|short )",
    re.I,
)


def articles(dump: Path) -> Iterator[tuple[str, str]]:
    """Title and markup of every article of a bzip2 dump, in its order, with one page in memory.

    Redirects and pages outside the article namespace are skipped. Raises UserError for a file that
    is not bzip2 or not XML.
    """
    try:
        with bz2.open(dump) as file:
            for _, page in ElementTree.iterparse(file):
                if not page.tag.endswith("}page"):
                    continue
                ns = page.tag.removesuffix("page")
                markup = page.findtext(f"{ns}revision/{ns}text")
                if (
                    page.findtext(f"{ns}ns") == "0"
                    and page.find(f"{ns}redirect") is None
                    and markup
                ):
                    yield page.findtext(f"{ns}title") or "", markup
                page.clear()
    except (OSError, EOFError, ElementTree.ParseError) as error:
        raise UserError(f"{dump}: not a readable bzip2 MediaWiki dump: {error}") from None


def passages(markup: str) -> Iterator[str]:
    """Passages of clean prose of an article's markup, in its order.

    Paragraphs are joined by a line break; a rest shorter than PASSAGE_CHARACTERS is dropped.
    """
    passage: list[str] = []
    for paragraph in paragraphs(markup):
        passage.append(paragraph)
        if sum(map(len, passage)) >= PASSAGE_CHARACTERS:
            yield "\n".join(passage)
            passage = []


def paragraphs(markup: str) -> Iterator[str]:
    """The paragraphs of whole sentences of an article, without headings, lists and tables."""
    skipped_below = 0
    text: list[str] = []
    for node in mwparserfromhell.parse(markup, skip_style_tags=True).nodes:
        if isinstance(node, nodes.Heading):
            if not skipped_below or node.level <= skipped_below:
                title = str(node.title).strip().lower()
                skipped_below = node.level if title in _SKIPPED_SECTIONS else 0
            text.append("\n")
        elif not skipped_below:
            text.append(_render(node))
    for line in "".join(text).split("\n"):
        paragraph = _tidy(line)
        if _is_prose(paragraph):
            yield paragraph


def _is_prose(line: str) -> bool:
    return (
        len(line) >= _SHORTEST_PARAGRAPH
        and _GAP not in line
        and _LIST_ITEM not in line
        and (line[0].isupper() or line[0].isdigit() or line[0] in "\"'\u201c")
        and line.rstrip("\"'\u201d\u2019)")[-1:] in (".", "!", "?")
        and not re.search(r"\{\||\|\}|\{\{|\}\}|\[\[|\]\]|<[a-z/]|\||https?:|__", line)
    )


_TIDY = [
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"\(\s*(?:(?:or|also|from)?\s*[,;:]\s*)+"), "("),
    (re.compile(r"(?:\s*[,;:])+\s*\)"), ")"),
    (re.compile(r"\s*\(\s*\)|\s*\[\s*\]"), ""),
    (re.compile(r"\(\s+"), "("),
    (re.compile(r"\s+\)"), ")"),
    (re.compile(r"\s+([,.;:!?])(?=\s|$)"), r"\1"),
    (re.compile(r"([,;:])(?:\s*[,;:])+"), r"\1"),
    (re.compile(r"\s+"), " "),
]


def _tidy(line: str) -> str:
    for pattern, replacement in _TIDY:
        line = pattern.sub(replacement, line)
    return line.strip()


def _render(node: Any) -> str:
    for kind, render in _RENDERERS:
        if isinstance(node, kind):
            return render(node)
    return ""


def _render_all(code: Any) -> str:
    return "".join(_render(node) for node in code.nodes) if code is not None else ""


def _render_link(link: Any) -> str:
    if _NAMESPACES.match(str(link.title)):
        return ""
    return _render_all(link.text if link.text is not None else link.title).lstrip(":")


def _render_tag(tag: Any) -> str:
    name = str(tag.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return ""
    if name in _LIST_TAGS:
        return _LIST_ITEM
    if name in _GAP_TAGS:
        return _GAP
    if name == "br":
        return " "
    return _render_all(tag.contents)


def _render_template(template: Any) -> str:
    name, _, argument = str(template.name).strip().lower().replace("_", " ").partition(":")
    if name in _RENDERED_WORDS:
        return _RENDERED_WORDS[name]
    if name == "convert":
        return _render_quantity(template)
    if name == "formatnum" and argument:
        return argument.strip()
    if name in _RENDERED_PARAMETER and template.has(_RENDERED_PARAMETER[name]):
        return _render_all(template.get(_RENDERED_PARAMETER[name]).value)
    if name.startswith("lang-") and template.has(1):
        return _render_all(template.get(1).value)
    return "" if _DROPPED_TEMPLATE.match(name) else _GAP


def _render_quantity(template: Any) -> str:
    """`{{convert|5|km|mi}}` as "5 km", `{{convert|5|to|7|km}}` as "5 to 7 km"."""
    values = [str(p.value).strip() for p in template.params if not p.showkey]
    if len(values) >= 4 and values[1] in ("to", "and", "-", "\u2013", "by", "x", "or"):
        return f"{values[0]} {values[1]} {values[2]} {values[3]}"
    return " ".join(values[:2]) if len(values) >= 2 else _GAP


_RENDERERS: list[tuple[type[Any], Callable[[Any], str]]] = [
    (nodes.Text, lambda node: str(node.value)),
    (nodes.Wikilink, _render_link),
    (nodes.Tag, _render_tag),
    (nodes.Template, _render_template),
    (nodes.HTMLEntity, lambda node: str(node.normalize())),
    (nodes.ExternalLink, lambda node: _render_all(node.title)),
]
