"""Published results of the named recipes, test accuracy in percent, read from published.json."""

from importlib import resources
from typing import NamedTuple

from jaxlt.files.foreign_files import parse_json


class Published(NamedTuple):
    """What a source, a paper or a program's page, reports.

    Accuracies are over all classes, and over many-, medium- and few-shot ones as it defines them.
    """

    source: str
    accuracy: float | None = None
    many: float | None = None
    medium: float | None = None
    few: float | None = None


PUBLISHED: dict[str, Published] = {
    name: Published(source, *accuracies)
    for source, rows in parse_json(
        resources.files("jaxlt.recipes.named").joinpath("published.json").read_text("utf-8")
    ).items()
    for name, accuracies in rows.items()
}
