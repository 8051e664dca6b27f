"""What every method keeps to as a link of optax: state, schedules, JAX's transforms, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but
from small_problems import (
    COUNTS,
    METHODS,
    NUM_BATCHES,
    NUM_CLASSES,
    RADII,
    assert_close,
    batch,
    changed_update,
    class_losses_fn_of,
    compiled,
    first_update,
    initial_params,
    logits,
    update,
)

import jaxlt

pytestmark = pytest.mark.usefixtures("x64")
EACH_METHOD = pytest.mark.parametrize("name", soak_but({"focal_sam", "cc_sam"}, METHODS))
NUM_GROUPS = {"sam": 1, "imb_sam": 1, "sse_sam": 2, "focal_sam": 1, "cc_sam": NUM_CLASSES}


def spec(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.aval.weak_type), tree)


@EACH_METHOD
class TestState:
    def test_is_small_and_keeps_its_shapes_and_dtypes(self, name, precision):
        tx, params = METHODS[name](), initial_params(precision.dtype)
        state = tx.init(params)
        groups = (NUM_GROUPS[name],)
        assert state.count.dtype == jnp.int32
        assert state.perturbation_norm.shape == state.sharpness.shape == groups
        assert state.perturbation_norm.dtype == state.sharpness.dtype == jnp.float32
        gradient, after = compiled(tx, params)(state, *batch(2, precision.dtype))
        assert spec(after) == spec(state)
        assert spec(gradient) == spec(params)
        assert after.count == 1
        assert (after.perturbation_norm > 0).all()
        assert (after.sharpness > 0).all()


@EACH_METHOD
class TestTransforms:
    def test_jit_compiles_once(self, name):
        tx, params = METHODS[name](), initial_params()
        traces = []

        @jax.jit
        def step(state, params, x, y):
            traces.append(name)
            gradient, state = update(tx, state, params, x, y)
            return optax.apply_updates(params, jax.tree.map(lambda g: -0.1 * g, gradient)), state

        state = tx.init(params)
        expected, _ = first_update(tx, *batch(0))
        for index in range(NUM_BATCHES):
            before = params
            params, state = step(state, params, *batch(index))
            if index == 0:
                moved = jax.tree.map(lambda new, old: (old - new) / 0.1, params, before)
                assert_close(moved, expected, 1e-5)
        assert len(traces) == 1
        assert state.count == NUM_BATCHES

    def test_vmap_over_seeds(self, name):
        tx, (x, y) = METHODS[name](), batch(2)
        factors = jnp.asarray([1.0, 0.5, -2.0])
        many = jax.vmap(lambda f: jax.tree.map(lambda w: f * w, initial_params()))(factors)
        gradients, states = jax.jit(jax.vmap(lambda p: update(tx, tx.init(p), p, x, y)))(many)
        for index in range(len(factors)):
            one = jax.tree.map(lambda w, i=index: w[i], many)
            expected = update(tx, tx.init(one), one, x, y)
            actual = jax.tree.map(lambda leaf, i=index: leaf[i], (gradients, states))
            assert_close(actual, expected, 1e-6)
            assert_close(actual[0], expected[0], 1e-12)

    def test_scan_equals_a_loop(self, name):
        tx = optax.chain(METHODS[name](), optax.sgd(0.1, momentum=0.9))
        start = (initial_params(), tx.init(initial_params()))

        def step(carry, xy):
            params, state = carry
            updates, state = update(tx, state, params, *xy)
            return (optax.apply_updates(params, updates), state), None

        batches = [batch(index) for index in range(NUM_BATCHES)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
        scanned, _ = jax.lax.scan(step, start, stacked)
        looped = start
        for xy in batches:
            looped, _ = step(looped, xy)
        assert_close(scanned[0], looped[0], 1e-12)

    def test_no_rank_promotion(self, name):
        """People who forbid it, to find their own mistakes, can use the library."""
        with jax.numpy_rank_promotion("raise"):
            tx, params = METHODS[name](adaptive=True), initial_params()
            compiled(tx, params)(tx.init(params), *batch(2))

    def test_16_bit_compute(self, name):
        """The network runs in bfloat16; losses, norms and radii stay in 32 bits."""
        params, (x, y) = initial_params(jnp.float32), batch(2, jnp.float32)

        def class_losses_fn(p):
            short = jax.tree.map(lambda w: w.astype(jnp.bfloat16), (p, x))
            return jaxlt.class_losses(jaxlt.losses.cross_entropy(logits(*short), y), y, NUM_CLASSES)

        gradient, state = changed_update(METHODS[name](), class_losses_fn, params)
        expected, exact = first_update(METHODS[name](), *batch(2))
        assert spec(gradient) == spec(params)
        assert_close(gradient, expected, 0.03)
        np.testing.assert_allclose(state.perturbation_norm, exact.perturbation_norm, rtol=0.02)

    def test_integer_counts(self, name):
        """`ClassLosses` may be built by hand, with `jnp.bincount` say."""
        params, (x, y) = initial_params(), batch(2)

        def class_losses_fn(p):
            losses = class_losses_fn_of(x, y)(p)
            return jaxlt.ClassLosses(losses.sums, jnp.bincount(y, length=NUM_CLASSES))

        gradient, _ = changed_update(METHODS[name](), class_losses_fn, params)
        assert_close(gradient, first_update(METHODS[name](), x, y)[0], 1e-12)


SCHEDULED = [(name, radius) for name, radii in RADII.items() for radius in radii] + [
    ("focal_sam", "sharpness_weight"),
    ("focal_sam", "gamma"),
    ("cc_sam", "flat_ratio"),
    ("cc_sam", "max_relative_radius"),
]


@pytest.mark.parametrize(("name", "argument"), SCHEDULED)
def test_schedule_gives_the_number_of_its_step(name, argument):
    """Three steps at the same parameters, each against a fresh method with that step's number."""
    params, (x, y) = initial_params(), batch(2)
    schedule: Any = optax.linear_schedule(0.01, 0.07, 3)
    tx = METHODS[name](**{argument: schedule})
    state = tx.init(params)
    for index in range(3):
        gradient, state = update(tx, state, params, x, y)
        number = METHODS[name](**{argument: float(schedule(index))})
        assert_close(gradient, first_update(number, x, y)[0], 1e-7)


@EACH_METHOD
class TestErrors:
    def test_update_without_class_losses_fn(self, name):
        tx, params = METHODS[name](), initial_params()
        with pytest.raises(
            ValueError, match=r"^class_losses_fn must be a function .*, got NoneType: call up"
        ):
            tx.update(params, tx.init(params), params)

    def test_update_without_params(self, name):
        tx, params = METHODS[name](), initial_params()
        with pytest.raises(
            ValueError, match=r"^params must be given, got None: call update\(grads"
        ):
            tx.update(params, tx.init(params), class_losses_fn=class_losses_fn_of(*batch(0)))

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
    def test_16_bit_params_warn_at_init(self, name, dtype):
        params = initial_params(dtype)
        with pytest.warns(UserWarning, match=f"at least 32 bits, got {jnp.dtype(dtype)}: a radius"):
            METHODS[name]().init(params)

    def test_16_bit_params_outside_the_mask_do_not_warn(self, name):
        params = initial_params(jnp.bfloat16)
        params["classifier.bias"] = params["classifier.bias"].astype(jnp.float32)
        METHODS[name](mask={leaf: leaf == "classifier.bias" for leaf in params}).init(params)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda tx, params: optax.masked(tx, {k: k > "d" for k in params}),
            lambda tx, params: optax.multi_transform(
                {"ours": tx, "sgd": optax.sgd(0.1)},
                {k: "ours" if k > "d" else "sgd" for k in params},
            ),
        ],
        ids=["masked", "multi_transform"],
    )
    def test_pruned_tree(self, name, wrap):
        params = initial_params()
        message = (
            "^params must be the whole tree that class_losses_fn takes, got one pruned by optax"
        )
        with pytest.raises(ValueError, match=message):
            wrap(METHODS[name](), params).init(params)


@pytest.mark.parametrize(
    ("shape", "message"),
    [("sums of one example each", "sums"), ("a leading axis", "sums")],
)
def test_class_losses_of_wrong_shape(shape, message):
    params, (x, y) = initial_params(), batch(2)

    def class_losses_fn(p):
        right = class_losses_fn_of(x, y)(p)
        if shape == "a leading axis":
            return jaxlt.ClassLosses(right.sums[None], right.counts)
        return jaxlt.ClassLosses(jaxlt.losses.cross_entropy(logits(p, x), y), right.counts)

    tx = jaxlt.cc_sam(COUNTS)
    with pytest.raises(ValueError, match=f"^class_losses_fn must return .*{message}"):
        tx.update(params, tx.init(params), params, class_losses_fn=class_losses_fn)


class Same(dict):
    """Another container with the same keys."""


jax.tree_util.register_pytree_with_keys(
    Same,
    lambda same: (((jax.tree_util.DictKey("k"), same["k"]),), None),
    lambda _, children: Same(k=next(iter(children))),
)


@pytest.mark.parametrize(
    ("of_updates", "message"),
    [
        ({"k": np.ones(2)}, r"got \(2,\) for \(3,\) at \['k'\]"),
        ({"j": np.ones(3)}, r"got \(3,\) for no leaf at \['j'\]"),
        ({}, r"got no leaf for \(3,\) at \['k'\]"),
        (Same(k=np.ones(3)), "got PyTreeDef"),
    ],
)
def test_updates_that_are_not_of_the_parameters(of_updates, message):
    params, tx = {"k": jnp.ones(3)}, jaxlt.sam(0.1)

    def class_losses_fn(p):
        return jaxlt.ClassLosses(jnp.square(p["k"]), jnp.ones(3))

    with pytest.raises(ValueError, match=f"^updates must have the .* of params, .*{message}"):
        tx.update(of_updates, tx.init(params), params, class_losses_fn=class_losses_fn)


WRAPPERS = {
    "flatten": optax.flatten,
    "lookahead": lambda tx: optax.lookahead(optax.chain(tx, optax.sgd(0.1)), 2, 0.5),
    "contrib.sam": lambda tx: optax.contrib.sam(optax.sgd(0.1), optax.chain(tx, optax.sgd(0.1))),
    "contrib.split_real_and_imaginary": optax.contrib.split_real_and_imaginary,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_around_a_method_are_refused_before_anything_is_computed(name):
    params = initial_params()
    if name == "lookahead":
        params = optax.LookaheadParams.init_synced(params)
    with pytest.raises(
        ValueError,
        match=f"^the method must not stand within optax.{name}: ",
    ):
        WRAPPERS[name](jaxlt.sam(0.1)).init(params)
    behind = optax.chain(jaxlt.sam(0.1), optax.flatten(optax.adam(0.1)))
    behind.init(initial_params())


def test_lookahead_behind_a_method():
    params = optax.LookaheadParams.init_synced(initial_params())
    tx = optax.chain(jaxlt.sam(0.1), optax.lookahead(optax.sgd(0.1), 2, 0.5))
    with pytest.raises(ValueError, match=r"^params must be .*, got LookaheadParams: call meth"):
        tx.init(params)


def test_multi_steps_around_a_method_warns_at_init():
    wrong = optax.MultiSteps(optax.chain(jaxlt.sam(0.1), optax.sgd(0.1)), 2)
    with pytest.warns(
        UserWarning,
        match=r"^the method should not stand within optax.MultiSteps, .* last micro-batch",
    ):
        wrong.init(initial_params())
