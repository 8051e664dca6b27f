"""Names of any script and with any sign: in a report's pictures, in PNG files, in tables."""

import base64
import re
import warnings
import xml.etree.ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from written_runs import change_recipe, write_run

from experiments.presentation import markdown_table, picture, printable
from experiments.report.figures import draw_over_steps, filled, row_lines, shortened
from experiments.report.mistakes import Predicted, draw_matrix
from experiments.report.panels import by_class, calibration, curves, head_and_tail
from experiments.report.rows import LearnedClasses, curve, images_of, read_runs, rows_of
from experiments.table.plan import Cell, Entry, Plan
from experiments.table.render import draw_by_class, draw_table
from jaxlt.recipes import SAM, Data, Digits, Recipe

# As given and as shown.
NAMES = {
    "猫": "猫",
    # Isolated, or numbers that follow would stand on its left.
    "قطة": "\u2068قطة\u2069",
    "बिल्ली": "बिल्ली",
    "👩\u200d🚀": "👩\u200d🚀",
    "<b>&\"'": "<b>&\"'",
    "$x$ $a_b_c$": "$x$ $a_b_c$",
    "two\nlines": "two lines",
    "na\udcef\x1b\u202e": "na\ufffd\ufffd",
}


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings(action="error"):
        yield


def texts_of(picture):
    """The texts of a report's picture, as an XML parser reads them."""
    contents = base64.b64decode(picture.data_uri.partition(",")[2])
    root = xml.etree.ElementTree.fromstring(contents)
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(("given", "shown"), NAMES.items())
def test_a_name_is_made_printable_once(given, shown):
    assert printable(given) == printable(shown) == shown


def test_directories_in_a_legend(tmp_path):
    # A legend of matplotlib leaves out what begins with an underscore.
    labels = {**NAMES, "_hidden": "./_hidden"}
    for number, name in enumerate(labels, start=1):
        write_run(tmp_path / name, method=SAM(rho=number / 10), names=list(NAMES)[-5:])
    rows = rows_of(read_runs([tmp_path]), tmp_path)
    assert {row.label for row in rows} == set(labels.values())
    assert rows[0].learned.class_names == tuple(NAMES.values())[-5:]
    lines = row_lines(
        rows, lambda row: curve([run.files.evaluations for run in row.runs], lambda one: one.few)
    )
    assert set(labels.values()) < set(texts_of(draw_over_steps("few", "share", lines, "")))


def test_classes_in_a_matrix():
    names = (*NAMES.values(), "x" * 80, "猫" * 80)
    numbers, images = np.arange(len(names)), None
    found = Predicted(images, numbers, numbers, numbers, np.ones(len(names)))
    learned = LearnedClasses("set", names, tuple(range(len(names), 0, -1)), (8, 8, 1))
    texts = texts_of(draw_matrix("run", found, learned))
    for name in [*NAMES.values(), "x" * 13 + "…", "猫" * 6 + "…"]:
        assert texts.count(name) == 2


def test_wide_characters_count_twice():
    assert shortened("猫" * 7, 14) == "猫" * 7
    assert shortened("a" * 14, 14) == "a" * 14
    assert filled("猫 " * 4 + "dogs", 6) == "猫 猫\n猫 猫\ndogs"


def test_boxes_in_a_file_are_said_once(tmp_path, caplog):
    with picture(tmp_path / "a.png", 1, 1, (2, 2)) as (_, [[axes]]):
        axes.plot([0, 1])
        axes.set_title("猫 بيت 👩\u200d🚀")
    assert caplog.messages == [
        f"{tmp_path / 'a.png'} shows boxes for characters that matplotlib's fonts lack"
    ]


def test_other_warnings_about_a_file_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: warnings.warn("oh", stacklevel=1))
    with pytest.warns(UserWarning, match="oh"), picture(tmp_path / "a.png", 1, 1, (2, 2)):
        warnings.simplefilter("always")


def test_cells_of_a_table_stay_cells():
    text = markdown_table(["class", "a|b"], [["one\ntwo|three", 3], ["\ud800\x1b[2J", "-"]])
    header, _, *lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()]
    assert [cell.strip() for cell in header] == ["class", r"a\|b"]
    assert [[cell.strip() for cell in line] for line in lines] == [
        [r"one two\|three", "3"],
        ["\ufffd\ufffd[2J", "-"],
    ]
    text.encode()


@pytest.mark.parametrize(
    ("part", "values", "images"),
    [
        ("data", {}, "test images"),
        ("data", {"validation": 0.2}, "held-out images"),
        ("data", {"validation_per_class": 2}, "held-out images"),
        ("evaluation", {"images": "val"}, "validation images"),
    ],
)
def test_what_was_evaluated_is_named(tmp_path, part, values, images):
    path = write_run(tmp_path / "run")
    change_recipe(path, part, **values)
    assert images_of(2 * rows_of(read_runs([path]), tmp_path)) == images


def test_pictures_say_what_was_evaluated(tmp_path):
    change_recipe(write_run(tmp_path / "run"), "data", validation=0.2)
    rows = rows_of(read_runs([tmp_path / "run"]), tmp_path)
    sections = [make(rows) for make in (curves, by_class, head_and_tail, calibration)]
    parts = [part for section in sections for part in (section, *section.subsections)]
    pictures = [one for part in parts for one in part.pictures]
    texts = [" ".join(texts_of(one)) for one in pictures]
    assert len(texts) == 9
    assert "Test" not in str(sections)
    assert "test" not in str(sections) + str(texts)
    assert sum("held-out images" in text for text in texts) == 6
    write_run(tmp_path / "other")
    assert images_of(rows_of(read_runs([tmp_path]), tmp_path)) == "evaluated images"


def test_files_say_what_was_evaluated(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    recipe = Recipe(data=Data(source=Digits(), validation=0.2))
    cell = Cell("SGD", "left", "sgd", recipe)
    plan = Plan("title", (cell,), by_group=False)
    draw_table(plan, [Entry(cell, "accuracy", {0: 50.0}, {})], tmp_path / "table.png")
    draw_by_class((9, 3), {"SGD": [{"per_class": [0.5, 1]}]}, tmp_path / "b.png", "test images")
    table, by_size = drawn
    assert table.get_supxlabel() == "accuracy on held-out images (%)"
    assert by_size.axes[0].get_ylabel() == "accuracy of the class\non test images (%)"
