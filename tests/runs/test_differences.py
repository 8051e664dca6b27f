"""What differs between recipes, by the names of flags."""

import msgspec

from jaxlt.recipes import SAM, Data, Digits, FocalSAM, Recipe, Stage, TauNorm
from jaxlt.runs.differences import differences, flattened


def identity(recipe, **more):
    return {"format": 2, "recipe": msgspec.to_builtins(recipe), "contents": {}, **more}


def test_values_are_named_as_flags_name_them():
    recipe = Recipe(data=Data(source=Digits()), stages=(Stage(method=SAM(rho=0.2)), TauNorm()))
    values = flattened(identity(recipe, seed=3))
    assert values["method"] == "sam"
    assert values["method.rho"] == 0.2
    assert values["then.0"] == "tau_norm"
    assert values["then.0.tau"] == 0.5
    assert values["data.source"] == "digits"
    assert values["seed"] == 3


def test_another_part_is_one_difference_and_its_fields_are_left_out():
    one, other = (
        identity(Recipe(stages=(Stage(method=method),))) for method in (SAM(), FocalSAM(gamma=1.0))
    )
    assert differences([one, other]) == {"method": ["sam", "focal_sam"]}


def test_the_same_part_differs_by_its_fields():
    trees = [identity(Recipe(stages=(Stage(method=SAM(rho=rho)),))) for rho in (0.1, 0.2, 0.1)]
    assert differences(trees) == {"method.rho": [0.1, 0.2, 0.1]}


def test_a_stage_that_one_lacks():
    trees = [identity(Recipe()), identity(Recipe(stages=(Stage(), TauNorm(tau=0.3))))]
    assert differences(trees) == {"then.0": ["-", "tau_norm"], "then.0.tau": ["-", 0.3]}


def test_a_file_is_known_by_its_contents_wherever_it_lies():
    here, there = identity(Recipe()), identity(Recipe())
    for tree, path in ((here, "a.pth"), (there, "b.pth")):
        tree["recipe"]["network"]["weights"] = path
        tree["contents"] = {"weights": "sha256:1"}
    assert differences([here, there]) == {}
    there["contents"] = {"weights": "sha256:2"}
    assert differences([here, there]) == {"contents.weights": ["sha256:1", "sha256:2"]}
