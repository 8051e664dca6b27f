"""The README's code does what it says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxlt

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def test_the_optax_example_runs_and_learns():
    example, factored, _ = [text for language, text in BLOCKS if language == "python"]
    names = {}
    exec(example, names)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(names["params"]))
    images, labels, counts = (names[name] for name in ("images", "labels", "class_counts"))

    def loss(params):
        logits = images @ params["kernel"] + params["bias"]
        return jaxlt.losses.logit_adjusted(logits, labels, counts).mean()

    assert loss(names["params"]) < 0.9 * loss(jax.tree.map(jnp.zeros_like, names["params"]))
    assert names["opt_state"][0].count == 10
    exec(factored, names)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(names["updates"]))
    assert isinstance(names["losses"](names["params"]), jaxlt.ClassLosses)


def test_the_first_two_lines_of_code_install_run_and_test():
    language, text = BLOCKS[0]
    run, test = text.splitlines()
    assert language == "sh"
    assert run.endswith("&& python3 -m experiments.quickstart")
    assert re.search(r"&& python3 -m pytest( |$)", test)


@pytest.mark.parametrize("path", re.findall(r"`((?:jaxlt|experiments|tests)/[\w/.]*)`", README))
def test_paths_that_the_readme_names_exist(path):
    assert (Path(__file__).parents[1] / path).exists()
