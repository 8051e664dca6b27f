"""What optax asks of a transformation, of every one of jaxlt, in one table."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec
from lanes import soak_but
from small_problems import METHODS, Method, assert_close

import jaxlt
from jaxlt.sharpness.perturbation import PerturbationRule, norm

COUNTS = (90, 30, 4)
NUM_CLASSES = len(COUNTS)
IMAGES = np.random.default_rng(0).normal(size=(8, 3))
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])


def variant(name: str, **changed: Any) -> Method:
    method = METHODS[name]
    counts = {"class_counts": COUNTS} if "class_counts" in method.arguments else {}
    return Method(method.factory, method.arguments | counts | changed)


def is_head(params):
    return {name: name in ("bias", "head") for name in params}


TABLE = {
    "sam": variant("sam"),
    "sam adaptive": variant("sam", adaptive=True),
    "imb_sam": variant("imb_sam"),
    "sse_sam": variant("sse_sam"),
    "sse_sam second stage": variant("sse_sam", switch_step=0),
    "sse_sam switched": variant("sse_sam", switch_step=1),
    "focal_sam": variant("focal_sam"),
    "cc_sam": variant("cc_sam"),
    "cc_sam two by two": variant("cc_sam", chunk_size=2, adaptive=True),
    "cc_sam classifier": variant("cc_sam", mask=is_head),
    "cc_sam per leaf": variant("cc_sam", grad_norm="per_leaf"),
    "cc_sam random": variant("cc_sam", direction="random", mask=is_head),
    "sharpness_aware": Method(
        jaxlt.sharpness_aware,
        {"groups": ((1, 0, 0), (0.5, 1, 0), (0, 0, 1)), "rho": (0.1, 0.05, 0.2), "seed": None},
    ),
    "gradient_norm_penalty": Method(jaxlt.gradient_norm_penalty, {"penalty": 0.05, "rho": 0.1}),
    "random_perturbation": Method(jaxlt.random_perturbation, {"rho": 0.1, "seed": 0}),
    "every": Method(jaxlt.every, {"k": 2, "method": jaxlt.sam(0.1), "alpha": 0.7}),
}
# Those that follow a gradient: 64 bits draw other random directions than 32.
FOLLOWING = [name for name in TABLE if "random" not in name]
EACH = pytest.mark.parametrize("name", TABLE)
# One group that adds to the incoming gradient, groups one after the other, groups at once.
THREE = soak_but({"imb_sam", "cc_sam two by two", "cc_sam classifier"}, TABLE)


def initial(dtype: Any = float) -> dict[str, jax.Array]:
    draw = np.random.default_rng(2).normal
    return {
        "bias": jnp.asarray(draw(size=3), dtype),
        "body": jnp.asarray(draw(size=(3, 4)), dtype),
        "head": jnp.asarray(draw(size=(4, 3)), dtype),
        "scale": jnp.asarray(1.5, dtype),
    }


def logits(params, images):
    bias, body, head, scale = (
        params[name].astype(images.dtype) for name in ("bias", "body", "head", "scale")
    )
    return scale * jnp.tanh(images @ body) @ head + bias[None]


def losses_of(images, labels, of=lambda params: params, factor=1.0):
    """Losses at the images' precision of parameters of any, or of what `of` makes of them."""

    def losses_fn(params):
        per_example = jaxlt.losses.cross_entropy(logits(of(params), images), labels)
        return jaxlt.class_losses(factor * per_example, labels, NUM_CLASSES)

    return losses_fn


def in_parts(images, labels, of=lambda params: params):
    """The same losses, with passes over the images of a group alone."""

    def features(params, images):
        body, head, scale = (of(params)[name] for name in ("body", "head", "scale"))
        dtype = images.dtype
        return (scale.astype(dtype) * jnp.tanh(images @ body.astype(dtype))).astype(head.dtype)

    def classifier(params):
        return jaxlt.Linear(of(params)["head"], of(params)["bias"])

    return jaxlt.FactoredLosses(
        features_fn=features,
        classifier_fn=classifier,
        loss_fn=jaxlt.losses.cross_entropy,
        images=images,
        labels=labels,
        num_classes=NUM_CLASSES,
        independent=True,
        passes=jaxlt.Blocks((3, 1)),
    )


def batch(dtype: Any = float):
    return jnp.asarray(IMAGES, dtype), jnp.asarray(LABELS)


def measured(state):
    """What the method measured, whatever stands around it."""
    return {field: optax.tree.get(state, field) for field in jaxlt.SharpnessState._fields}


def gradient_of(losses_fn, params):
    return jax.grad(lambda p: losses_fn(p).mean(), allow_int=True)(params)


def step(tx, losses_fn, params, state=None, **extra):
    """A step: updates and state."""
    state = tx.init(params) if state is None else state
    gradient = gradient_of(losses_fn, params)
    return tx.update(gradient, state, params, class_losses_fn=losses_fn, **extra)


def spec(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


def abstract(function, *args):
    return spec(jax.eval_shape(function, *args))


def numbers(name, losses_fn, params):
    """What a first step gives under `jit`."""
    return jax.jit(lambda p: step(TABLE[name](), losses_fn, p))(params)


DTYPES = {
    "bfloat16": [jnp.bfloat16],
    "float16": [jnp.float16],
    "float32": [jnp.float32],
    "float64": [jnp.float64],
    "mixed": [jnp.bfloat16, jnp.float64, jnp.bfloat16, jnp.float16],
    "mixed 32": [jnp.float16, jnp.float32, jnp.float16, jnp.bfloat16],
}


def of_dtypes(kinds):
    """Parameters of one type, or of one for each: bias, body, head, scale."""
    kinds = [jax.dtypes.canonicalize_dtype(kind) for kind in kinds]
    return {
        name: leaf.astype(kinds[index % len(kinds)])
        for index, (name, leaf) in enumerate(initial().items())
    }


@pytest.mark.filterwarnings("ignore:params that are perturbed should have")
class TestDtypes:
    @pytest.mark.parametrize(
        ("kinds", "name", "compute"),
        soak_but(
            {
                *(("mixed", name, "float64") for name in TABLE),
                *((kind, "cc_sam", "float32") for kind in DTYPES if kind != "float64"),
            },
            [(k, n, c) for k in DTYPES for n in TABLE for c in ("float32", "float64")],
        ),
    )
    def test_every_leaf_keeps_its_own(self, name, kinds, compute):
        """Losses of 64 bits of parameters of 16 and 32 too; nothing is promoted unsaid."""
        with jax.enable_x64(compute == "float64"):
            params, losses_fn = of_dtypes(DTYPES[kinds]), losses_of(*batch(compute))
            updates, _ = abstract(lambda p: step(TABLE[name](), losses_fn, p), params)
            assert updates == spec(params)

    @pytest.mark.parametrize(
        ("kinds", "name"),
        soak_but({("mixed", "cc_sam")}, [(k, n) for k in DTYPES for n in TABLE]),
    )
    def test_passes_over_part_of_the_batch(self, name, kinds):
        """Features have the type of the head."""
        with jax.enable_x64(True):
            params, losses_fn = of_dtypes(DTYPES[kinds]), in_parts(*batch())
            updates, _ = abstract(lambda p: step(TABLE[name](), losses_fn, p), params)
            assert updates == spec(params)

    @pytest.mark.parametrize("name", soak_but({"cc_sam two by two"}, TABLE))
    def test_parameters_of_16_bits_give_the_gradient_of_32(self, name):
        losses_fn, short = losses_of(*batch(jnp.float32)), initial(jnp.bfloat16)
        whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), short)
        actual, _ = numbers(name, losses_fn, short)
        expected, _ = numbers(name, losses_fn, whole)
        actual = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), actual)
        assert_close(actual, expected, 0.01)


def joined(params):
    """Complex parameters of pairs of real ones."""
    return {k: jax.lax.complex(*w) if isinstance(w, tuple) else w for k, w in params.items()}


def real_of(params):
    """What the losses take of complex parameters: it reads both parts of each."""
    return {name: jnp.real(w) - jnp.imag(w) ** 2 for name, w in params.items()}


@pytest.mark.usefixtures("x64")
class TestComplex:
    """A complex parameter is its real and its imaginary part as two real ones."""

    @pytest.mark.parametrize(
        ("name", "losses"),
        soak_but(
            {
                ("imb_sam", "known"),
                ("imb_sam", "in parts"),
                ("cc_sam per leaf", "plain"),
                ("cc_sam classifier", "plain"),
                ("gradient_norm_penalty", "plain"),
            },
            [(name, losses) for name in TABLE for losses in ("plain", "known", "in parts")],
        ),
    )
    def test_equals_two_real_leaves(self, name, losses):
        make = in_parts if losses == "in parts" else losses_of
        draw = np.random.default_rng(3).normal
        pair: Any = {
            name: (leaf, jnp.asarray(draw(size=leaf.shape))) for name, leaf in initial().items()
        }
        pair["scale"] = pair["scale"][0]  # a real one beside them
        losses_fn = make(*batch(), of=real_of)
        twin_losses_fn = make(*batch(), of=lambda params: real_of(joined(params)))
        tx, params = TABLE[name](), joined(pair)

        @jax.jit
        def both(params, pair):
            gradient, known = gradient_of(losses_fn, params), losses_fn
            if losses == "known":
                _, gradient, known = jaxlt.value_and_grad(losses_fn)(params)
            # As for every transformation of optax, the gradient is conjugated first.
            gradient = jax.tree.map(jnp.conj, gradient)
            result = tx.update(gradient, tx.init(params), params, class_losses_fn=known)
            return result, step(tx, twin_losses_fn, pair)

        (updates, state), (expected, expected_state) = both(params, pair)
        assert_close(updates, joined(expected), 1e-12)
        assert_close(measured(state), measured(expected_state), 1e-6)
        assert (measured(state)["perturbation_norm"] > 0).any()

    def test_checked_mode_wants_the_conjugate(self):
        params = initial() | {"scale": jnp.asarray(1 + 2j)}
        losses_fn = losses_of(*batch(), of=real_of)
        gradient = gradient_of(losses_fn, params)
        tx: Any = jaxlt.checked(jaxlt.sam(0.1))
        right = jax.tree.map(jnp.conj, gradient)
        tx.update(right, tx.init(params), params, class_losses_fn=losses_fn)
        with pytest.raises(ValueError, match=r"^updates must be the gradient of class_losses_fn"):
            tx.update(gradient, tx.init(params), params, class_losses_fn=losses_fn)

    def test_norm_takes_both_parts(self):
        w = jnp.asarray([3 + 4j, 0])

        def losses_fn(w):
            return jaxlt.ClassLosses(jnp.abs(w[:1]) ** 2, jnp.ones(1))

        tx = jaxlt.sam(1.0)
        updates: Any
        state: Any
        updates, state = tx.update(2 * w, tx.init(w), w, class_losses_fn=losses_fn)
        np.testing.assert_allclose(updates, 2 * (w + w / 5), rtol=1e-12)
        np.testing.assert_allclose(state.perturbation_norm, 1.0, rtol=1e-6)


def spoiled(params, images):
    """Images that depend on leaves without a derivative."""
    noise = jax.random.normal(params["key"], images.shape, images.dtype)
    return jnp.where(params["train"], images + noise, jnp.nan)


@pytest.mark.usefixtures("x64")
class TestLeavesWithoutDerivative:
    """They are constants of the losses, and their updates come back as they came."""

    @pytest.mark.parametrize("name", soak_but({"imb_sam", "cc_sam classifier"}, TABLE))
    def test_are_passed_over(self, name):
        images, labels = batch()
        others = {
            "key": jax.random.key(0),
            "labels": labels,
            "none": None,
            "train": jnp.array([True]),
        }
        tx = TABLE[name]()

        def losses_fn(params):
            return losses_of(spoiled(params, images), params["labels"])(params)

        def alone(params):
            return losses_fn(params | others)

        @jax.jit
        def both(params):
            updates, state = step(tx, losses_fn, params | others)
            return updates, state, *step(tx, alone, params)

        updates, state, expected, expected_state = both(initial())
        for leaf in ("key", "labels", "train"):
            assert updates.pop(leaf).dtype == jax.dtypes.float0
        assert updates.pop("none") is None
        assert_close(updates, expected, 1e-12)
        assert_close(measured(state), measured(expected_state), 1e-6)

    @pytest.mark.parametrize("way", ["per_shard", "over_axis"])
    def test_in_a_map_over_devices(self, way):
        """A complex one beside them, and a method that reads the incoming gradient."""
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
        spread, whole = PartitionSpec("batch"), PartitionSpec()
        params = initial() | {"count": jnp.arange(3), "z": jnp.asarray(1 + 2j)}
        tx = TABLE["imb_sam"]()

        def losses_by_count(images, labels):
            return losses_of(
                images,
                labels,
                of=lambda p: p | {"scale": real_of(p)["z"] + p["count"].sum().astype(float)},
            )

        def update(tx, losses_fn, by, params):
            gradient = gradient_of(losses_fn, by(params))
            gradient["z"] = gradient["z"].conj()
            updates, _ = tx.update(gradient, tx.init(params), params, class_losses_fn=losses_fn)
            return {name: u for name, u in updates.items() if name != "count"}

        @functools.partial(
            jax.shard_map, mesh=mesh, in_specs=(whole, spread, spread), out_specs=whole
        )
        def mapped(params, images, labels):
            losses_fn = losses_by_count(images, labels)
            if way == "over_axis":
                return update(tx, jaxlt.over_axis(losses_fn, "batch"), lambda p: p, params)
            own = functools.partial(jax.lax.pcast, axis_name="batch", to="varying")
            return update(jaxlt.per_shard(tx, "batch"), losses_fn, own, params)

        expected = update(tx, losses_by_count(*batch()), lambda p: p, params)
        assert_close(jax.jit(mapped)(params, *batch()), expected, 1e-12)

    def test_gradients_of_their_own_type_come_back(self):
        params = {"count": jnp.arange(3), "w": jnp.ones(2)}
        gradient = {"count": jnp.array([5, 6, 7]), "w": jnp.ones(2)}

        def losses_fn(params):
            return jaxlt.ClassLosses(params["w"] * params["count"].sum().astype(float), jnp.ones(2))

        tx = jaxlt.gradient_norm_penalty(0.1, 0.1)
        updates: Any
        updates, _ = tx.update(gradient, tx.init(params), params, class_losses_fn=losses_fn)
        assert updates["count"].dtype == params["count"].dtype
        np.testing.assert_array_equal(updates["count"], [5, 6, 7])

    @pytest.mark.parametrize("leaf", [jnp.tanh, "relu", {1}], ids=["function", "str", "set"])
    def test_what_is_no_array_is_refused(self, leaf):
        params = {"layer": [jnp.ones(2), leaf]}
        kind = type(leaf).__name__
        message = rf"^params must be a pytree of arrays, got {kind} at params\['layer'\]\[1\]: keep"
        tx = jaxlt.sam(0.1)
        with pytest.raises(TypeError, match=message):
            tx.init(params)
        state = tx.init({"layer": [jnp.ones(2)]})
        with pytest.raises(TypeError, match=message):
            tx.update(params, state, params, class_losses_fn=lambda p: jaxlt.ClassLosses(p, p))


@EACH
@pytest.mark.parametrize("leaves", ["empty", "none", "integers"])
def test_no_parameters_come_back_as_they_came(name, leaves):
    params = {"empty": {}, "none": {"a": None}, "integers": {"a": jnp.arange(2)}}[leaves]

    def losses_fn(params):
        return jaxlt.ClassLosses(jnp.array([2.0, 1.0, 0.0]), jnp.array([1.0, 1.0, 0.0]))

    tx = TABLE[name](mask=None) if "mask" in TABLE[name].arguments else TABLE[name]()
    state = tx.init(params)
    updates, after = tx.update(params, state, params, class_losses_fn=losses_fn)
    assert spec(updates) == spec(params)
    assert_close(updates, params, 0)
    assert spec(after) == spec(state)
    found = measured(after)
    assert (found["count"], found["loss"]) == (1, 1.5)
    assert not found["perturbation_norm"].any()
    assert not found["sharpness"].any()


@EACH
def test_a_parameter_without_entries_changes_nothing(name):
    losses_fn = losses_of(*batch())
    tx, params = TABLE[name](), initial() | {"empty": jnp.zeros((0, 3))}
    updates, _ = abstract(lambda p: step(tx, losses_fn, p), params)
    assert updates == spec(params)


class TestRange:
    """Gradients whose squares leave the range of 32 bits."""

    @pytest.mark.parametrize("factor", [1e-25, 1e25])
    @pytest.mark.parametrize("name", soak_but({"sse_sam", "cc_sam per leaf"}, FOLLOWING))
    def test_result_is_that_of_64_bits(self, name, factor):
        results = []
        for dtype in (jnp.float32, jnp.float64):
            with jax.enable_x64(dtype == jnp.float64):
                losses_fn = losses_of(*batch(dtype), factor=factor)
                updates, state = numbers(name, losses_fn, initial(dtype))
                updates = jax.tree.map(lambda u: np.asarray(u, np.float64) / factor, updates)
                results.append((updates, np.asarray(measured(state)["perturbation_norm"])))
        assert_close(results[0][0], results[1][0], 1e-4)
        np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4)
        assert (results[0][1] > 0).any()

    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
    @pytest.mark.parametrize("largest", [0.0, 1e-37, 1e-20, 1.0, 1e19, 3e37, np.inf, np.nan])
    def test_norm(self, largest, dtype):
        with jax.enable_x64(dtype == jnp.float64):
            x = jnp.asarray([3 * largest, 0 if np.isinf(largest) else -4 * largest, 0], dtype)
            empty = jnp.zeros((0, 2), dtype)
            expected = np.linalg.norm(np.asarray(x, np.float64))
            np.testing.assert_allclose(norm([x[:1], empty, x[1:]]), expected, rtol=1e-6)

    def test_norm_of_many(self):
        rows = jnp.asarray([[1e-30, 1e-30], [0, 0], [1e30, 1e30], [1, 2e-30]], jnp.float32)
        expected = [2**0.5 * 1e-30, 0, 2**0.5 * 1e30, 1]
        np.testing.assert_allclose(jax.jit(jax.vmap(norm))([rows]), expected, rtol=1e-6)

    def test_norm_scales_without_rounding(self):
        """So that results in the ordinary range are what they were without scaling."""
        x = np.random.default_rng(0).normal(size=100).astype(np.float32)
        ordinary = jnp.sqrt(jnp.square(x).sum())
        for factor in (1, 2.0**-4, 2.0**30):
            assert norm([factor * x]) == factor * ordinary

    @pytest.mark.parametrize("per_leaf", [False, True])
    def test_perturbation_of_leaves_of_very_different_size(self, per_leaf):
        rule = PerturbationRule(adaptive=True, per_leaf=per_leaf)
        theta = [jnp.asarray([1.0, 2.0]), jnp.asarray([0.5])]
        gradient = [jnp.asarray([3e-30, 0.0]), jnp.asarray([1e30])]
        eps = rule.perturbation(gradient, theta, jnp.asarray(0.1), 0)
        np.testing.assert_allclose(eps[0], [0.1 if per_leaf else 0, 0], atol=1e-9)
        np.testing.assert_allclose(eps[1], [0.05], rtol=1e-6)


def restarted(tx, losses_fn, params, state):
    """Parameters and state after a step, of the types they had."""
    updates, state = step(tx, losses_fn, params, state, unknown=3.0, loss=None)
    return optax.apply_updates(params, updates), state


@EACH
class TestLoops:
    def test_types_stay_in_a_conditional_and_in_a_scan(self, name):
        """And keywords that others take are passed over."""
        tx, params, losses_fn = TABLE[name](), initial(), losses_of(*batch())

        def run(params, start):
            once = functools.partial(restarted, tx, losses_fn)
            count = optax.tree.get(start, "count")
            carry = jax.lax.cond(count < 1, once, lambda *now: now, params, start)
            return jax.lax.scan(lambda now, _: (once(*now), None), carry, length=2)[0]

        start = jax.eval_shape(tx.init, params)
        assert spec(start) == spec(tx.init(params))
        # Nothing that was traced once is traced anew for what comes out.
        assert abstract(run, params, start) == (spec(params), spec(start))

    def test_state_can_be_donated(self, name):
        state = TABLE[name]().init(initial())
        jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)(state)

    def test_updates_keep_their_type(self, name):
        params, losses_fn = initial(), losses_of(*batch())
        tx = TABLE[name]()
        short = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)

        def update(short, params):
            return tx.update(short, tx.init(params), params, class_losses_fn=losses_fn)[0]

        assert abstract(update, short, params) == spec(short)


def behind(tx):
    """Optax's wrappers, each in the place where it may stand."""
    accumulate = optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2).gradient_transformation()
    return optax.apply_if_finite(
        optax.named_chain(
            ("method", tx),
            ("decay", optax.masked(optax.add_decayed_weights(0.1), is_head)),
            (
                "rate",
                optax.partition(
                    {"fast": optax.adam(1.0), "slow": optax.set_to_zero()},
                    {"bias": "slow", "body": "fast", "head": "fast", "scale": "slow"},
                ),
            ),
            ("accumulate", optax.GradientTransformationExtraArgs(*accumulate)),
        ),
        3,
    )


@pytest.mark.parametrize("name", THREE)
class TestCompany:
    def test_wrappers_behind_and_around(self, name):
        tx, params, losses_fn = behind(TABLE[name]()), initial(), losses_of(*batch())
        start = tx.init(params)
        with jax.numpy_dtype_promotion("standard"):  # optax's own links mix types
            after = abstract(functools.partial(restarted, tx, losses_fn), params, start)
        assert after == (spec(params), spec(start))

    def test_inject_hyperparams(self, name):
        """Other than radii and weights, arguments are part of the program."""
        factory, arguments = TABLE[name]
        static = [k for k, v in arguments.items() if not isinstance(v, float)]
        tx: Any = optax.inject_hyperparams(factory, static_args=static)(**arguments)
        params, losses_fn = initial(), losses_of(*batch())
        start = tx.init(params)
        assert set(start.hyperparams) >= set(arguments) - set(static)
        updates, after = abstract(lambda p, s: step(tx, losses_fn, p, s), params, start)
        assert (updates, after.inner_state) == (spec(params), spec(start.inner_state))

    def test_batch_spread_over_an_explicit_mesh(self, name):
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Explicit,))
        tx, params = TABLE[name](), initial()
        with jax.set_mesh(mesh):
            images, labels = jax.device_put(batch(), PartitionSpec("batch"))
            whole = jax.device_put(params, PartitionSpec())

            def sharded(params, images, labels):
                return step(tx, losses_of(images, labels), params)

            updates, _ = jax.eval_shape(sharded, whole, images, labels)
        assert spec(updates) == spec(params)
        assert all(
            leaf.sharding.spec == PartitionSpec(*[None] * leaf.ndim)
            for leaf in jax.tree.leaves(updates)
        )
