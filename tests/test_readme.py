"""The documents' code does what they say, and what they name is there."""

import importlib.util
import re
import sys
from pathlib import Path
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import pytest
from eight_devices import run_with_eight_devices

import jaxlt

ROOT = Path(__file__).parents[1]
NAMES = (
    "README.md",
    "jaxlt/README.md",
    "jaxlt/CHANGELOG.md",
    "jaxlt/data/README.md",
    "jaxlt/methods/README.md",
    "jaxlt/recipes/README.md",
    "experiments/README.md",
    "tests/README.md",
    "tests/golden/README.md",
    ".github/CONTRIBUTING.md",
)
TEXTS = {name: (ROOT / name).read_text() for name in NAMES}
BLOCKS = {
    name: re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for name, text in TEXTS.items()
}
RECIPES = (ROOT / "jaxlt/recipes/__init__.py").exists()
# Read elsewhere: tests/evaluation/test_prediction.py has a run for it.
PREDICTION = "from jaxlt.evaluation import Predictor"
TRACKERS = ("wandb", "mlflow", "trackio")


def python_blocks(name):
    blocks = [text for language, text in BLOCKS[name] if language == "python"]
    return [text for text in blocks if not text.startswith(PREDICTION)]


def imports_recipes(text):
    return re.search(r"^from jaxlt import recipes|^import jaxlt\.recipes", text, re.MULTILINE)


def without_code(text):
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    headings = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def of_all_documents(pattern):
    return [(name, found) for name in NAMES for found in re.findall(pattern, TEXTS[name])]


def test_the_optax_example_runs_and_learns():
    (example,) = python_blocks("README.md")
    names = {}
    exec(example, names)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(names["params"]))
    images, labels, counts = (names[name] for name in ("images", "labels", "class_counts"))

    def loss(params):
        logits = images @ params["kernel"] + params["bias"]
        return jaxlt.losses.logit_adjusted(logits, labels, counts).mean()

    assert loss(names["params"]) < 0.9 * loss(jax.tree.map(jnp.zeros_like, names["params"]))
    assert names["opt_state"][0].count == 10


def test_the_example_of_factored_losses_gives_the_gradient_of_plain_ones():
    factored, *_ = python_blocks("jaxlt/README.md")
    names = {}
    exec(factored, names)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(names["updates"]))
    losses, params = names["losses"], names["params"]
    assert isinstance(losses(params), jaxlt.ClassLosses)
    cc, grads = names["cc"], names["grads"]
    plain, _ = cc.update(grads, cc.init(params), params, class_losses_fn=lambda p: losses(p))
    for leaf, other in zip(*map(jax.tree.leaves, (names["updates"], plain)), strict=True):
        assert jnp.allclose(leaf, other, atol=1e-6)


def test_the_method_of_ones_own_is_the_equation_written_out():
    """Group by group with `jax.grad` alone, at the start and where the schedule has ended."""
    _, _, own, _ = python_blocks("jaxlt/README.md")
    names = {}
    exec(own, names)
    labels, params = jnp.array([0, 0, 1, 2]), jax.random.normal(jax.random.key(1), (8, 3))
    images = jax.random.normal(jax.random.key(0), (4, 8))

    def class_losses_fn(params):
        losses = jaxlt.losses.cross_entropy(images @ params, labels)
        return jaxlt.class_losses(losses, labels, num_classes=3)

    method = names["by_frequency"]
    for step, radii in ((0, (0.02, 0.05, 0.05)), (1000, (0.02, 0.05, 0.2))):
        state = method.init(params)._replace(count=jnp.asarray(step))
        found, _ = method.update(params, state, params, class_losses_fn=class_losses_fn)
        expected = jnp.zeros_like(params)
        for label, radius in enumerate(radii):  # each group is one class here
            gradient = jax.grad(lambda p, label=label: class_losses_fn(p).sums[label] / 4)
            direction = gradient(params)
            expected += gradient(params + radius * direction / jnp.linalg.norm(direction))
        assert jnp.allclose(found, expected, atol=1e-6)


def test_the_example_on_many_devices_gives_one_update_in_two_ways_and_another_for_each_shard():
    (example,) = [text for text in python_blocks("jaxlt/README.md") if "jax.shard_map" in text]
    checks = """
import numpy as np
assert jax.device_count() == 8
alike = with_jit(params, *batch), with_shard_map(params, *batch)
np.testing.assert_allclose(*alike, rtol=0, atol=1e-7)
own = with_own_perturbations(params, *batch)
assert np.abs(own).max() > 1e-3
assert np.abs(np.asarray(own) - np.asarray(alike[0])).max() > 1e-5
"""
    run_with_eight_devices(example + checks)


def test_the_loop_without_a_recipe_learns_once_and_refuses_another_radius(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, loop = python_blocks("jaxlt/README.md")
    names, again = {}, {}
    exec(loop, names)
    result = names["workdir"].read_result()
    assert result["balanced_accuracy"] > 0.5
    exec(loop, again)
    chex.assert_trees_all_equal(names["trained"].params, again["trained"].params)
    # With its seconds, which would not be the same.
    assert again["workdir"].read_result() == result
    with pytest.raises(jaxlt.UsageError, match=r"rho is 0\.05 there and 0\.5 here"):
        exec(loop.replace('"rho": 0.05', '"rho": 0.5'), {})


@pytest.mark.parametrize("name", ["jaxlt/data/README.md", "jaxlt/recipes/README.md"])
def test_the_other_python_blocks_run_one_after_the_other(name, tmp_path, monkeypatch):
    """In an empty directory; trackers that are not installed are stood in for."""
    monkeypatch.chdir(tmp_path)
    for tracker in TRACKERS:
        if importlib.util.find_spec(tracker) is None:
            monkeypatch.setitem(sys.modules, tracker, mock.MagicMock())
    blocks, names = python_blocks(name), {"__name__": "__main__"}
    if any(imports_recipes(text) for text in blocks) and not RECIPES:
        pytest.skip("jaxlt.recipes does not exist")
    for text in blocks:
        exec(text, names)


def test_no_python_block_goes_unread():
    read = {"README.md", "jaxlt/README.md", "jaxlt/data/README.md", "jaxlt/recipes/README.md"}
    # By tests/experiments/test_export.py and tests/methods/test_loops.py.
    read |= {"experiments/README.md", "jaxlt/methods/README.md"}
    assert {name for name in NAMES if python_blocks(name)} == read
    assert len(python_blocks("jaxlt/README.md")) == 4


def test_the_first_two_lines_of_code_install_run_and_test():
    language, text = BLOCKS["README.md"][0]
    assert language == "sh"
    assert text.splitlines() == [
        "python3 -m pip install -e '.[train]' && python3 -m experiments.quickstart",
        "python3 -m pip install -e '.[test]' && python3 -m pytest -n auto",
    ]


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 250


@pytest.mark.parametrize(
    ("name", "path"), of_all_documents(r"`((?:jaxlt|experiments|tests)/[\w/.]*)`")
)
def test_paths_that_the_documents_name_exist(name, path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "module"), of_all_documents(r"(?:-m |`)(experiments\.[a-z_]+)"))
def test_programs_that_the_documents_name_exist(name, module):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_every_program_is_in_the_list_of_programs():
    listed = set(
        re.findall(r"^\| `(\w+)` \| .*`experiments\.", TEXTS["experiments/README.md"], re.M)
    )
    runs = re.compile(r"""^if __name__ == "__main__":""", re.MULTILINE)
    modules = [
        path.stem for path in (ROOT / "experiments").glob("*.py") if runs.search(path.read_text())
    ]
    folders = [path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py")]
    assert {*modules, *folders} - {"__main__"} == listed | {"img_focus"}


@pytest.mark.parametrize(("name", "target"), of_all_documents(r"\]\((?!https?:)([^)\s]+)\)"))
def test_links_lead_somewhere(name, target):
    path, _, anchor = target.partition("#")
    file = ((ROOT / name).parent / path) if path else ROOT / name
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text())


def test_each_claim_in_the_table_of_proofs_has_a_test_and_an_oracle():
    _, _, section = TEXTS["tests/README.md"].partition("## What is proved where\n")
    _, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    claims = [row.strip("| ").split(" | ") for row in rows if not row.startswith("| **")]
    assert len(claims) > 60
    for claim, proofs, oracle in claims:
        assert claim
        assert oracle
        assert re.findall(r"\]\((?:\w+/)*test_\w+\.py\)", proofs)
    tests = {str(path.relative_to(ROOT / "tests")) for path in ROOT.glob("tests/**/test_*.py")}
    assert tests == set(re.findall(r"\]\(((?:\w+/)*test_\w+\.py)\)", section))


def test_golden_files_say_how_they_are_made():
    golden = ROOT / "tests" / "golden"
    files = [*golden.glob("*.npz"), *golden.glob("models/*.safetensors")]
    assert len(files) > 15
    named = set(re.findall(r"`([\w.]+)`", TEXTS["tests/golden/README.md"]))
    assert {file.name.removesuffix(".safetensors") for file in files} <= named


def test_no_sentence_is_said_twice():
    places = {}
    for name, text in TEXTS.items():
        plain = re.sub(r"\s+", " ", re.sub(r"^\|.*$", "", without_code(text), flags=re.MULTILINE))
        for sentence in re.split(r"(?<=[.:]) ", plain):
            if len(sentence.split()) >= 8:
                places.setdefault(sentence.strip(), []).append(name)
    assert not {sentence: names for sentence, names in places.items() if len(names) > 1}
