"""Markup of Wikipedia becomes clean prose."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from adapruner.data.texts import wikipedia
from adapruner.data.texts.readers import read_records
from adapruner.errors import UserError
from tests.adapruner.data.pools import needs_gensim, resolve

LONG = "and this is long enough to be taken for a sentence of prose, with a full stop."
MARKUP = f"""{{{{Infobox thing|name=[[Test]]}}}}
'''Test''' is a [[procedure (test)|procedure]]<ref>{{{{cite book|title=T}}}}</ref> of about \
{{{{convert|5|km|mi}}}} ({{{{lang|la|proba}}}}; {{{{IPAc-en|t|e}}}}), since 1900&nbsp;or so, {LONG}
[[File:A.jpg|thumb|A caption {LONG}]]
The energy is given by the famous formula <math>E = mc^2</math> {LONG}
* A list item {LONG}
{{| class="wikitable"
| A cell {LONG}
|}}
== References ==
This stands below a heading that holds only sources {LONG}
"""


def test_markup_becomes_prose() -> None:
    expected = f"Test is a procedure of about 5 km (proba), since 1900 or so, {LONG}"
    assert list(wikipedia.paragraphs(MARKUP)) == [expected]


def test_passages_are_runs_of_whole_paragraphs_of_a_minimum_length() -> None:
    paragraphs = [f"Paragraph {i} is the first, {LONG}" for i in range(30)]
    passages = list(wikipedia.passages("\n".join(paragraphs)))
    assert len(passages) > 1
    assert "\n".join(passages) in "\n".join(paragraphs)
    for passage in passages:
        shorter = passage.rpartition("\n")[0]
        assert len(shorter) < wikipedia.PASSAGE_CHARACTERS <= len(passage)


def test_redirects_and_pages_of_other_namespaces_are_skipped(tmp_path: Path) -> None:
    page = "<page><title>{0}</title><ns>{1}</ns>{2}<revision><text>{0}</text></revision></page>"
    pages = [
        page.format("Article", 0, ""),
        page.format("Talk", 1, ""),
        page.format("Redirect", 0, '<redirect title="Article" />'),
    ]
    content = f'<mediawiki xmlns="http://example.org/">{"".join(pages)}</mediawiki>'
    dump = tmp_path / "dump.bz2"
    dump.write_bytes(bz2.compress(content.encode()))
    assert list(wikipedia.articles(dump)) == [("Article", "Article")]


@pytest.mark.parametrize("content", [b"no bzip2", bz2.compress(b"<no xml")])
def test_a_damaged_dump_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    dump = tmp_path / "dump.bz2"
    dump.write_bytes(content)
    with pytest.raises(UserError, match=r"dump\.bz2") as error:
        list(wikipedia.articles(dump))
    assert "\n" not in str(error.value)


@needs_gensim
def test_the_embedded_default_is_clean_prose() -> None:
    source = resolve("package:gensim")["package:gensim"]
    records = list(read_records(source, text_field="text", max_records=200))
    assert len(records) == 200
    assert len({record.document for record in records}) > 5
    for record in records:
        assert len(record.text) >= wikipedia.PASSAGE_CHARACTERS
        marks = ("[[", "{{", "''", "<ref", "|", "http", "==")
        assert not any(mark in record.text for mark in marks)
