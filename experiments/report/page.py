"""What a page consists of, and its HTML: one file that loads nothing."""

import dataclasses
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture with its data in its address.

    Attributes:
        source: data URI.
        caption: shown above.
        alternative: what it shows, for those who do not see it.
        wide: whether it has panels side by side, which a phone shows by scrolling.
    """

    source: str
    caption: str
    alternative: str
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts; the first column names what a line is about.

    Attributes:
        caption: shown above.
        headers: of the columns.
        lines: of cells.
        folded: whether a reader sees the caption alone at first.
    """

    caption: str
    headers: Sequence[str]
    lines: Sequence[Sequence[str]]
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class SectionPart:
    """Paragraphs, tables and pictures of a section, in this order.

    Attributes:
        title: subheading; empty for none.
        paragraphs: plain text.
        tables: see `Table`.
        pictures: see `Picture`.
    """

    title: str = ""
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: short, for links.
        title: heading.
        parts: contents.
    """

    name: str
    title: str
    parts: Sequence[SectionPart]


def render(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Returns the page's HTML. All texts are escaped."""
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
