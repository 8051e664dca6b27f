"""The README's code does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxlt

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]


def test_the_optax_example_runs_and_learns():
    example, factored = PYTHON[:2]
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


def test_the_example_on_many_devices_gives_one_update_in_two_ways_and_another_for_each_shard():
    (example,) = [text for text in PYTHON if "jax.shard_map" in text]
    checks = """
import numpy as np
assert jax.device_count() == 8
alike = with_jit(params, *batch), with_shard_map(params, *batch)
np.testing.assert_allclose(*alike, rtol=0, atol=1e-7)
own = with_own_perturbations(params, *batch)
assert np.abs(own).max() > 1e-3
assert np.abs(np.asarray(own) - np.asarray(alike[0])).max() > 1e-5
"""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    finished = subprocess.run(
        [sys.executable, "-c", example + checks],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_the_first_two_lines_of_code_install_run_and_test():
    language, text = BLOCKS[0]
    run, test = text.splitlines()
    assert language == "sh"
    assert run.endswith("&& python3 -m experiments.quickstart")
    assert re.search(r"&& python3 -m pytest( |$)", test)


@pytest.mark.parametrize("path", re.findall(r"`((?:jaxlt|experiments|tests)/[\w/.]*)`", README))
def test_paths_that_the_readme_names_exist(path):
    assert (ROOT / path).exists()
