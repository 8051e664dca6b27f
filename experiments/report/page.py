"""What a page consists of, and its HTML: one file that loads nothing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined


class Picture(NamedTuple):
    """A picture with its caption above and how to read it below."""

    data_uri: str
    caption: str
    alternative: str
    """What it shows, for those who do not see it."""
    reading: str
    """A sentence on how to read it."""
    wide: bool = False
    """Whether it has panels side by side, which a phone shows by scrolling."""
    broad_uri: str | None = None
    """The same for a page that is wider than a phone, of a picture that stands alone."""


class Table(NamedTuple):
    """A table of texts, with its caption above; the first column names what a line is about."""

    caption: str
    headers: Sequence[str]
    lines: Sequence[Sequence[str]]
    folded: bool = False
    """Whether a reader sees the caption alone at first."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Line and column of what is shown in bold."""
    sortable: bool = False
    """Whether a click on a heading sorts the lines, where the browser runs scripts."""


class Thumbnail(NamedTuple):
    """A small picture of one image, with a line on what it is and one on what it was taken for."""

    data_uri: str
    name: str
    true: str
    taken_for: str


class Section(NamedTuple):
    """A section or a subsection, whose contents are shown in this order."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    gallery: Sequence[Thumbnail] = ()
    subsections: "Sequence[Section]" = ()


def render(title: str, introduction: str, sections: Mapping[str, Section]) -> str:
    """Returns the page's HTML, all texts escaped; links call the sections by their keys."""
    environment = Environment(
        loader=PackageLoader("experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, introduction=introduction, sections=sections)
