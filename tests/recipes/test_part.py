"""Parts of a recipe: what they check, what they say, and their way through JSON and back."""

import json
import math
from typing import Literal

import msgspec
import numpy as np
import pytest

from jaxlt import UsageError, recipes
from jaxlt.recipes.in_words import need, shown
from jaxlt.recipes.named import RECIPES
from jaxlt.recipes.part import (
    Choice,
    Count,
    NonNegative,
    Part,
    Positive,
    Share,
    annotations,
    check,
    field_docs,
    options,
    own_fields,
    part_name,
    part_types,
)
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.recorded import read_recipe, recipe_of, write_recipe


class Paint(Choice, frozen=True):
    """How it is painted."""

    thickness: NonNegative = 1.0
    """In millimeters."""


class Red(Paint, frozen=True, tag="red"):
    """Red."""

    shade: Literal["dark", "light"] = "dark"
    """Which red,
    of two."""


class Blue(Paint, frozen=True, tag="blue"):
    """Blue."""


class Lining(Part, frozen=True):
    """What is inside."""


class Box(Part, frozen=True):
    """A box."""

    paint: Red | Blue | None = Red()
    """Paint."""
    lids: tuple[Red | Blue, ...] = ()
    """Lids."""
    lining: Lining = Lining()
    """Lining."""
    sides: tuple[Positive, ...] = (1.0, 2.0)
    """Sides."""
    count: Count | None = None
    """How many."""
    full: Share = 0.5
    """How full."""
    heavy: bool = False
    """Whether it is heavy."""
    label: str = "a"
    """What is on it."""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count must be an integer of at least 1, or none, got 0"),
        ({"count": 1.5}, "count must be an integer of at least 1, or none, got 1.5"),
        ({"count": True}, "count must be an integer of at least 1, or none, got true"),
        ({"count": "3"}, "count must be an integer of at least 1, or none, got 3"),
        ({"count": 10**30}, f"count must be at most 2147483647, got {10**30}"),
        ({"full": 1.5}, "full must be between 0 and 1, got 1.5"),
        ({"full": math.nan}, "full must be between 0 and 1, got nan"),
        ({"full": None}, "full must be between 0 and 1, got none"),
        ({"sides": (1.0, 0.0)}, "sides must be a list, each positive, got 1.0 0.0"),
        ({"sides": (math.inf,)}, "sides must be finite, got inf"),
        ({"sides": (math.nan,)}, "sides must be a list, each positive, got nan"),
        ({"sides": 1.0}, "sides must be a list, each positive, got 1.0"),
        ({"heavy": 1}, "heavy must be true or false, got 1"),
        ({"label": b"a"}, "label must be a text, got b'a'"),
        ({"label": None}, "label must be a text, got none"),
        ({"paint": 3}, "paint must be one of the parts Red, Blue, or none, got 3"),
        ({"paint": "red"}, "paint must be one of the parts Red, Blue, or none, got red"),
        ({"paint": Red}, "paint must be one of the parts Red, Blue, or none, got .*Red.*"),
        ({"lids": Red()}, "lids must be a list, each one of the parts Red, Blue, got red"),
        ({"lids": (Red(), None)}, "lids must be a list, each one of the parts .*, got red none"),
        ({"lining": Red()}, "lining must be one of the parts Lining, got red"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(fields, message):
    with pytest.raises(UsageError, match=f"^{message}$") as caught:
        Box(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value):
    with pytest.raises(UsageError, match=r"^thickness must be .*, got -?(nan|inf)$"):
        Red(thickness=value)


def test_a_part_of_ones_own_is_of_the_base_that_the_others_share():
    class Green(Paint, frozen=True, tag="green"):
        """Green."""

    class Gray(Choice, frozen=True, tag="gray"):
        """No paint."""

    assert Box(paint=Green()).paint == Green()
    with pytest.raises(UsageError, match="paint must be one of the parts Red, Blue, or none, got"):
        Box(paint=Gray())


def test_what_is_changed_is_checked_again():
    assert Red().replace(thickness=2.0).thickness == 2.0
    with pytest.raises(UsageError, match="thickness must be at least 0, got -1"):
        Red().replace(thickness=-1.0)
    with pytest.raises(AttributeError):
        Red().thickness = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_value_has_one_form():
    box = Box(sides=[1, np.float32(2)], count=np.int64(3), full=1, lids=[Blue()])
    same = Box(sides=(1.0, 2.0), count=3, full=1.0, lids=(Blue(),))
    assert box == same
    assert Box(sides=np.array([1, 2])) == Box()
    assert isinstance(box.sides, tuple)
    assert [type(x) for x in (*box.sides, box.count, box.full)] == [float, float, int, float]
    assert isinstance(box.lids, tuple)
    assert hash(box) == hash(same)


def test_parts_are_called_by_their_tags():
    assert (part_name(Red), part_name(Red())) == ("red", "red")
    assert msgspec.to_builtins(Red()) == {"name": "red", "thickness": 1.0, "shade": "dark"}
    assert own_fields(Red) == ("shade",)
    assert own_fields(Blue) == ()
    assert part_types(annotations(Box)["paint"]) == (Red, Blue)
    assert part_types(annotations(Box)["sides"]) == ()
    assert type(None) in options(annotations(Box)["paint"])


def test_a_field_says_what_it_means_and_needs():
    assert field_docs(Red) == {"thickness": "In millimeters.", "shade": "Which red, of two."}
    needs = {name: need(annotation) for name, annotation in annotations(Red).items()}
    assert needs == {"thickness": "at least 0", "shade": "one of dark, light"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        ((1, 2.5, "a"), "1 2.5 a"),
        (Red(), "red"),
        (0.1, "0.1"),
    ],
)
def test_values_are_shown_as_flags_take_them(value, text):
    assert shown(value) == text
    with pytest.raises(UsageError, match=f"^x must be else, got {text}$"):
        check("x", value, False, "else")


def every_part(kind=Part):
    for one in kind.__subclasses__():
        if one.__module__.startswith("jaxlt."):
            yield one
            yield from every_part(one)


def test_every_field_of_every_part_has_a_docstring():
    parts = list(every_part())
    assert len(parts) > 50
    for part in parts:
        assert set(field_docs(part)) == set(part.__struct_fields__), part
        assert part.__doc__, part


def test_kinds_of_one_field_have_different_names():
    for part in every_part():
        for annotation in annotations(part).values():
            names = [part_name(kind) for kind in part_types(annotation) if issubclass(kind, Choice)]
            assert len(set(names)) == len(names)
            assert "none" not in names


@pytest.mark.parametrize("name", ["sgd_cifar10", "mislas_cifar100", "focal_sam_clip_imagenet_lt"])
def test_a_recipe_is_hashed_and_compared_by_its_values(name):
    again = msgspec.convert(msgspec.to_builtins(RECIPES[name]), Recipe)
    assert again is not RECIPES[name]
    assert hash(again) == hash(RECIPES[name])


def test_every_named_recipe_comes_back_from_json(tmp_path):
    path = tmp_path / "recipe.json"
    for name, recipe in RECIPES.items():
        text = write_recipe(recipe)
        again = recipe_of(json.loads(text), path)
        assert again == recipe, name
        assert write_recipe(again) == text
        path.write_text(text)
        assert read_recipe(path) == recipe


def test_a_field_left_out_has_its_default(tmp_path):
    stage = {"name": "train", "method": {"name": "focal_sam", "rho": 1}}
    tree = {"format": 2, "recipe": {"stages": [stage]}}
    method = recipes.FocalSAM(rho=1.0)
    assert recipe_of(tree, tmp_path) == Recipe(stages=(recipes.Stage(method=method),))


def with_value(tree, path, value):
    place = tree
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return tree


FIRST = ("stages", 0)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("color",), "red", "unknown field `color`"),
        (("data", "color"), "red", r"unknown field `color` - at `\$.data`"),
        ((*FIRST, "method", "rhoo"), 0.1, "unknown field `rhoo` - at .*method"),
        (
            (*FIRST, "method", "name"),
            "samm",
            "stages.0..method must be a part of jaxlt's, got samm",
        ),
        ((*FIRST, "epochs"), "many", "Expected `int`, got `str` - at .*epochs"),
        (
            (*FIRST, "epochs"),
            2**70,
            "epochs must be at most 2147483647, got 118059",
        ),
        ((*FIRST, "epochs"), 0, "epochs"),
        ((*FIRST, "optimizer", "lr"), None, "Expected `float`, got `null` - at .*lr"),
        ((*FIRST, "optimizer", "lr"), math.nan, "lr"),
        ((*FIRST, "optimizer", "lr"), math.inf, "lr must be finite, got inf"),
        ((*FIRST, "augmentation"), [], "Expected `object`, got `array` - at .*augmentation"),
        (("stages",), [], "stages must be a stage that trains"),
        (("stages",), {}, "Expected `array`, got `object` - at .*stages"),
        (("stages",), [{"name": "ncm"}], "stages must be a stage that trains"),
        (("network",), {"architecture": "mlp"}, "missing required field `name`"),
        (("network",), {"name": ["small"]}, "Expected `str`"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path, path, value, words):
    tree = json.loads(write_recipe(RECIPES["sam_cifar10"]))
    with_value(tree["recipe"], path, value)
    with pytest.raises(UsageError, match=words) as caught:
        recipe_of(tree, tmp_path / "recipe.json")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/recipe.json must hold a recipe: ")


@pytest.mark.parametrize("found", [1, 0, None, "2", [2], True, 10**400])
def test_another_format_is_refused_in_one_line(tmp_path, found):
    tree = {**json.loads(write_recipe(Recipe())), "format": found}
    with pytest.raises(UsageError, match="must have format 2, got ") as caught:
        recipe_of(tree, tmp_path / "recipe.json")
    assert str(caught.value).isprintable()


def test_a_method_of_ones_own_needs_no_place_in_the_package():
    class Mine(recipes.Method, frozen=True, tag="mine"):
        """Mine."""

        strength: NonNegative = 1.0
        """Strength."""

    stage = recipes.Stage(method=Mine(strength=2.0), epochs=3)
    assert stage.scaled(0.5).epochs == 2
    assert stage.replace(batch_size=7).method == Mine(strength=2.0)
    recipe = Recipe(stages=(stage,), evaluation=Evaluation(epochs=1))
    assert recipe.identity()["recipe"]["stages"][0]["method"] == {"name": "mine", "strength": 2.0}
    with pytest.raises(UsageError, match=r"strength must be at least 0, got -1\.0"):
        Mine(strength=-1.0)
