"""Pages, parsed: what an element could request, and the ids of a page."""

from __future__ import annotations

from html.parser import HTMLParser

REQUESTING_TAGS = {"script", "link", "img", "iframe", "object"}
REFERENCES = ("src", "href", "xlink:href", "data", "srcset", "action", "poster")


class Page(HTMLParser):
    """The tags of a page, the targets of its references, and the ids of its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in REFERENCES:
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def assert_self_contained(html: str) -> None:
    """The page requests nothing, and its references name ids of its own, each of one element."""
    page = Page(html)
    assert not page.tags & REQUESTING_TAGS
    assert set(page.references) <= {f"#{name}" for name in page.ids}
    assert len(page.ids) == len(set(page.ids))
