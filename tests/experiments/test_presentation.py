"""Names, order and colors of methods in tables and pictures."""

import csv
import io
import itertools

import pytest

from experiments.presentation import (
    COLORS,
    METHODS,
    best_places,
    csv_writer,
    legend_beside,
    method_name,
    picture,
    place_of,
    run_styles,
)
from jaxlt.recipes import Method
from jaxlt.recipes.part import annotations, part_name, part_types
from jaxlt.recipes.stage import Stage


def colors(*names):
    return [style["color"] for style in run_styles(names)]


def test_methods_are_those_of_recipes():
    methods = part_types(annotations(Stage)["method"])
    labels = {part_name(one): one.label for one in methods if issubclass(one, Method)}
    assert labels == METHODS


def test_a_name_stays_in_its_cell_of_csv():
    names = ["a\rb", 'c"\n', " d ", "e,f"]
    text = io.StringIO(newline="")
    csv_writer(text).writerows([[name, 0.5] for name in names])
    assert list(csv.reader(io.StringIO(text.getvalue()))) == [[name, "0.5"] for name in names]


def test_a_method_has_one_color_whatever_stands_beside_it():
    assert colors("SGD", "SAM", "ImbSAM", "SSE-SAM", "Focal-SAM", "CC-SAM") == [*COLORS[:6]]
    assert colors("SGD", "Focal-SAM") == [COLORS[0], COLORS[4]]
    assert colors("Focal-SAM, step 20", "mine", "SGD") == [COLORS[4], COLORS[1], COLORS[0]]


def test_rows_of_one_method_differ_in_marker_and_line():
    one, other, sgd = run_styles(["SAM", "SAM", "SGD"])
    assert one["color"] == other["color"] != sgd["color"]
    assert one["marker"] != other["marker"]
    assert one["linestyle"] != other["linestyle"]


@pytest.mark.parametrize("name", ["SGD", "CC-SAM", "mine"])
def test_rows_of_one_method_alone_are_numbered_by_color(name):
    assert len(set(colors(*[name] * 8))) == 8


@pytest.mark.parametrize("names", [["SAM"] * 32, ["SGD", *["SAM"] * 32], list(map(str, range(8)))])
def test_styles_are_different(names):
    found = {tuple(sorted(style.items())) for style in run_styles(names)}
    assert len(found) == len(names)


def test_names_and_order():
    assert method_name("imagenet/focal_sam") == "imagenet/Focal-SAM"
    assert method_name("focal_sam_0.1") == "focal_sam_0.1"
    assert method_name("photos/sgd_baseline_half_lr") == "photos/SGD baseline half lr"
    names = ("sgd_baseline", "SGD", "a/sam", "CC-SAM", "x")
    assert [place_of(one) for one in names] == [0, 0, 1, 5, 8]
    assert all(place_of(a) < place_of(b) for a, b in itertools.pairwise(METHODS))


def test_best_is_bold_as_it_is_written():
    assert best_places([41.24, 41.16, 40.0], 1) == [0, 1]
    assert best_places([float("nan"), 2.0, 1.0], 1) == [1]
    assert best_places([float("nan"), 2.0], 1) == best_places([2.0], 1) == []


def test_a_dollar_in_a_name_begins_no_formula(tmp_path):
    name = "$a_{$"  # no formula can be made of it
    with picture(tmp_path / "picture.png", 1, 1, (4, 3)) as (figure, [[axes]]):
        axes.plot([1, 1000], [1, 2], label=name)
        axes.set(title=name, xscale="log", ylabel=name)
        axes.set_yticks([1, 2], [name, "b"])
        legend_beside(figure, axes)
    shown = [text.get_text() for text in axes.get_xticklabels()]
    assert r"$\mathdefault{10^{2}}$" in shown
    assert all(text.get_parse_math() for text in axes.get_xticklabels())
