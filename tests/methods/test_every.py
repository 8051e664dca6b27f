"""LookSAM for every method: the paper's algorithm in NumPy, both phases, what it costs."""

import functools
import warnings
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
    assert_close,
    batch,
    class_losses_fn_of,
    compiled,
    first_update,
    initial_params,
    plain_gradient,
    update,
)

import jaxlt


def every(*arguments, **options) -> Any:
    """Untyped, like the table of methods."""
    return jaxlt.every(*arguments, **options)


EACH_METHOD = pytest.mark.parametrize("name", soak_but({"focal_sam", "cc_sam"}, METHODS))


def giving(gradient):
    """A method with a given result."""
    sam: Any = jaxlt.sam(0.1)
    return optax.GradientTransformationExtraArgs(
        sam.init, lambda updates, state, params=None, **_: (gradient or updates, state)
    )


def looksam(k, alpha, layer_wise, pairs):
    """Algorithm 1 over steps of (plain, whole) gradients, dictionaries of arrays, as written."""

    def by_group(change, *trees):
        trees = [{key: np.asarray(x, np.float64) for key, x in tree.items()} for tree in trees]
        if layer_wise:
            return {key: change(*(tree[key] for tree in trees)) for key in trees[0]}
        flat = change(*(np.concatenate([x.ravel() for x in tree.values()]) for tree in trees))
        shapes = {key: x.shape for key, x in trees[0].items()}
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1]
        parts = np.split(flat, ends)
        return {
            key: x.reshape(shape) for (key, shape), x in zip(shapes.items(), parts, strict=True)
        }

    def part(g, g_s):
        length = np.linalg.norm(g)
        cosine = (g * g_s).sum() / (length * np.linalg.norm(g_s))
        g_v = g_s - np.linalg.norm(g_s) * cosine * g / length
        # Rounding alone, as in a batch without a class that ImbSAM perturbs.
        return g_v if np.linalg.norm(g_v) > 1e-13 * length else 0 * g_v

    def pulled(g, g_v):
        return g + alpha * np.linalg.norm(g) / (np.linalg.norm(g_v) or 1) * g_v

    g_v: Any = None
    for step, (plain, whole) in enumerate(pairs):
        if step % k == 0:
            g_v = by_group(part, plain, whole)
            yield whole
        else:
            yield by_group(pulled, plain, g_v)


@pytest.mark.usefixtures("x64")
class TestAlgorithm:
    @pytest.mark.parametrize(
        ("name", "layer_wise"),
        soak_but(
            {("sam", False), ("cc_sam", True)},
            [(name, layer_wise) for name in METHODS for layer_wise in (False, True)],
        ),
    )
    def test_is_the_papers(self, name, layer_wise):
        """Along a trajectory, on another batch at each step, with momentum behind."""
        method = METHODS[name]()
        tx = every(3, method, alpha=0.4, layer_wise=layer_wise)
        sgd = optax.sgd(0.1, momentum=0.9)
        params, state = initial_params(), tx.init(initial_params())
        momentum, step, pairs, found = sgd.init(params), compiled_at_params(tx), [], []
        for index in range(7):
            xy = batch(2 + index % 2)
            pairs.append(
                (plain_gradient(params, *xy), update(method, method.init(params), params, *xy)[0])
            )
            gradient, state = step(state, params, *xy)
            found.append(gradient)
            updates, momentum = sgd.update(gradient, momentum)
            params = optax.apply_updates(params, updates)
        for ours, theirs in zip(found, looksam(3, 0.4, layer_wise, pairs), strict=True):
            assert_close(ours, theirs, 1e-10)

    @EACH_METHOD
    def test_of_every_step_is_the_method(self, name):
        tx, same = METHODS[name](), every(1, METHODS[name]())
        one, other = (compiled(link, initial_params()) for link in (tx, same))
        state, others = tx.init(initial_params()), same.init(initial_params())
        for index in range(NUM_BATCHES):
            gradient, state = one(state, *batch(index))
            twin, others = other(others, *batch(index))
            jax.tree.map(np.testing.assert_array_equal, (gradient, state), (twin, others))

    def test_alpha_may_be_a_schedule_of_all_steps(self):
        schedule: Any = optax.linear_schedule(0.0, 1.0, 4)
        tx, params, xy = (
            every(2, METHODS["sam"](), alpha=schedule),
            initial_params(),
            batch(2),
        )
        state = tx.init(params)
        for index in range(4):
            gradient, state = update(tx, state, params, *xy)
            fixed = every(2, METHODS["sam"](), alpha=index / 4)
            _, before = first_update(fixed, *xy)
            expected = (
                update(fixed, before, params, *xy)[0] if index % 2 else first_update(fixed, *xy)[0]
            )
            assert_close(gradient, expected, 1e-7)

    def test_schedules_of_the_method_count_all_steps(self):
        schedule: Any = optax.linear_schedule(0.01, 0.07, 6)
        tx, params, xy = every(3, jaxlt.sam(schedule)), initial_params(), batch(2)
        state, step = tx.init(params), compiled(tx, params)
        for index in range(7):
            _, state = step(state, *xy)
            radius = schedule(index - index % 3)
            np.testing.assert_allclose(state.inner_state.perturbation_norm, [radius], rtol=1e-6)
            assert state.inner_state.count == state.step == index + 1

    def test_measurements_are_of_the_last_whole_step(self):
        """But for the loss, where `update` is told."""
        tx, params = every(3, METHODS["focal_sam"](), phase="reused"), initial_params()
        _, first = first_update(every(3, METHODS["focal_sam"]()), *batch(2))
        for told in ({}, {"value": jnp.float64(0.5)}):
            _, second = tx.update(params, first, params, **told)
            loss = jnp.float32(0.5) if told else first.inner_state.loss
            assert second.inner_state == first.inner_state._replace(count=2, loss=loss)
            jax.tree.map(np.testing.assert_array_equal, second.direction, first.direction)

    @pytest.mark.parametrize("layer_wise", [False, True])
    @pytest.mark.parametrize(
        "method",
        [
            lambda: giving(None),
            lambda: jaxlt.sam(0.0),
            lambda: jaxlt.focal_sam(COUNTS, 0.0, sharpness_weight=1.0, gamma=1.0),
        ],
        ids=["identity", "sam", "focal_sam"],
    )
    def test_a_plain_gradient_leaves_nothing_to_reuse(self, method, layer_wise, precision):
        """Rounding, which is all there is, would else be drawn out to the gradient's length."""
        tx = every(2, method(), layer_wise=layer_wise)
        params, (x, y) = initial_params(precision.dtype), batch(2, precision.dtype)
        _, state = update(tx, tx.init(params), params, x, y)
        gradient, _ = update(tx, state, params, x, y)
        jax.tree.map(np.testing.assert_array_equal, gradient, plain_gradient(params, x, y))


def compiled_at_params(tx):
    return jax.jit(lambda state, params, x, y: update(tx, state, params, x, y))


@pytest.mark.usefixtures("x64")
class TestPhases:
    @pytest.mark.parametrize("name", soak_but({"sse_sam"}, METHODS))
    def test_two_programs_are_the_one_with_a_conditional(self, name):
        params = initial_params()
        auto, whole, reused = (
            every(3, METHODS[name](), phase=phase) for phase in ("auto", "whole", "reused")
        )
        step, *phases = (compiled(tx, params) for tx in (auto, whole, reused))
        state = others = auto.init(params)
        assert jax.tree.structure(state) == jax.tree.structure(reused.init(params))
        for index in range(7):
            gradient, state = step(state, *batch(index % 4))
            twin, others = phases[index % 3 > 0](others, *batch(index % 4))
            assert_close((gradient, state), (twin, others), 1e-6)
            assert_close(gradient, twin, 1e-12)

    def test_reused_does_not_trace_the_method(self):
        def untraced(*args, **kwargs):
            raise AssertionError("the method was traced")

        sam = jaxlt.sam(0.1)
        method = optax.GradientTransformationExtraArgs(sam.init, untraced)
        tx, params = every(5, method, phase="reused"), initial_params()
        gradient, state = tx.update(params, tx.init(params))  # neither params nor losses
        jax.tree.map(np.testing.assert_array_equal, gradient, params)
        assert state.step == state.inner_state.count == 1


class TestNumbers:
    @pytest.mark.parametrize("scale", [1e-36, 1e-25, 1.0, 1e25, 6e37])
    def test_gradients_of_any_size(self, scale):
        """The formula, in float32, on a method whose gradient is given."""
        plain = {"w": jnp.array([3.0, 4.0]) * jnp.float32(scale)}
        given = {"w": jnp.array([1.0, 2.0]) * jnp.float32(scale)}
        tx = every(2, giving(given), alpha=0.5)
        _, state = tx.update(plain, tx.init(plain), plain)
        gradient, _ = tx.update(plain, state, plain)
        expected = list(looksam(2, 0.5, False, [({"w": [3.0, 4.0]}, {"w": [1.0, 2.0]})] * 2))[1]
        np.testing.assert_allclose(gradient["w"] / np.float32(scale), expected["w"], rtol=1e-5)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_a_gradient_that_is_not_finite_is_not_reused(self, wrong):
        plain, given = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([1.0, wrong])}
        tx = every(2, giving(given))
        _, state = tx.update(plain, tx.init(plain), plain)
        gradient, _ = tx.update(plain, state, plain)
        np.testing.assert_array_equal(gradient["w"], plain["w"])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
    def test_dtypes_and_shapes_are_kept(self, dtype):
        """Of leaves of that type beside others in 32 bits, in both branches of the conditional."""
        leaf = jnp.array([1.0, -2.0]).astype(dtype)
        plain = {"a": leaf, "b": jnp.array([0.5]), "empty": jnp.zeros([0]), "none": {}}
        given = {**plain, "a": -plain["a"][::-1]}
        tx = every(2, giving(given), alpha=1.0)
        with warnings.catch_warnings():
            # Of 16 bits, which a radius of usual size does not move.
            warnings.simplefilter("ignore")
            gradient, state, step = None, tx.init(plain), jax.jit(tx.update)
        for _ in range(2):
            gradient, after = step(plain, state, plain)
            assert shapes(gradient) == shapes(plain)
            assert shapes(after) == shapes(state)
            state = after
        assert shapes(state.direction) == shapes(plain)
        flat, other, found = (
            {key: np.asarray(tree[key].astype(complex).real) for key in "ab"}
            for tree in (plain, given, gradient)
        )
        expected = list(looksam(2, 1.0, False, [(flat, other)] * 2))[1]
        assert_close(found, expected, 0.02 if "16" in dtype else 1e-5)

    def test_a_complex_leaf_is_two_real_ones(self):
        rng = np.random.default_rng(0)
        plain, given = (rng.standard_normal((2, 5)).astype(np.float32) for _ in range(2))
        results = []
        for join in (lambda x: jnp.array(x), lambda x: jnp.array(x[0] + 1j * x[1], jnp.complex64)):
            tx = every(2, giving([join(given)]))
            _, state = tx.update([join(plain)], tx.init([join(plain)]), None)
            results.append(tx.update([join(plain)], state, None)[0][0])
        np.testing.assert_allclose(results[0], [results[1].real, results[1].imag], rtol=1e-4)

    def test_leaves_without_a_gradient_are_passed_over(self):
        params = {"w": jnp.array([1.0, 2.0]), "steps": jnp.array([3, 4])}
        plain = {"w": jnp.array([3.0, 4.0]), "steps": jnp.array([0, 0])}
        given = {**plain, "w": plain["w"][::-1]}
        tx = every(2, giving(given), layer_wise=True)
        state, step = tx.init(params), jax.jit(tx.update)
        assert len(jax.tree.leaves(state.direction)) == 1
        for _ in range(2):
            gradient, state = step(plain, state, params)
            np.testing.assert_array_equal(gradient["steps"], plain["steps"])
            assert not np.array_equal(gradient["w"], plain["w"])

    def test_no_leaves(self):
        tx = every(2, giving(None))
        assert tx.update({}, tx.init({}), {})[0] == {}


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.aval.weak_type), tree)


@pytest.mark.usefixtures("x64")
class TestTransforms:
    def test_scan_vmap_and_donation(self):
        """Four members over seven steps, as one program, are each a loop of its own."""
        tx = optax.chain(every(3, METHODS["focal_sam"]()), optax.sgd(0.1))

        def step(carry, xy):
            params, state = carry
            updates, state = update(tx, state, params, *xy)
            return (optax.apply_updates(params, updates), state), None

        batches = jax.tree.map(lambda *x: jnp.stack(x), *(batch(i % NUM_BATCHES) for i in range(7)))
        start = initial_params()
        many = [jax.tree.map(lambda w, f=f: f * w, start) for f in (1.0, 0.5)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *many)

        @functools.partial(jax.jit, donate_argnums=0)
        def together(carry):
            return jax.vmap(lambda one: jax.lax.scan(step, one, batches)[0])(carry)

        params, _ = together((stacked, jax.vmap(tx.init)(stacked)))
        alone = jax.jit(step)
        for index, one in enumerate(many):
            carry: Any = (one, tx.init(one))
            for i in range(7):
                carry, _ = alone(carry, batch(i % NUM_BATCHES))
            assert_close(jax.tree.map(lambda w, i=index: w[i], params), carry[0], 1e-12)

    def test_inject_hyperparams_stands_around(self):
        def method(k, rho, alpha):
            return every(k, jaxlt.sam(rho), alpha=alpha)

        schedule: Any = optax.linear_schedule(0.01, 0.07, 3)
        tx: Any = optax.inject_hyperparams(method, static_args="k")(k=2, rho=schedule, alpha=0.3)
        params, xy = initial_params(), batch(2)
        plain = every(2, jaxlt.sam(schedule), alpha=0.3)
        state, expected = tx.init(params), plain.init(params)
        for _ in range(3):
            gradient, state = compiled(tx, params)(state, *xy)
            twin, expected = compiled(plain, params)(expected, *xy)
            assert_close(gradient, twin, 1e-7)

    @pytest.mark.parametrize("phase", ["auto", "whole", "reused"])
    def test_per_shard_stands_around(self, phase):
        """On one device, m-sharpness is the method, and its directions are stored alike."""
        alone = every(2, METHODS["sam"](), phase=phase)
        tx, params, xy = jaxlt.per_shard(alone, "batch"), initial_params(), batch(2)
        mesh, spec = jax.sharding.Mesh(jax.devices()[:1], "batch"), jax.sharding.PartitionSpec

        @jax.jit
        @functools.partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(spec(), spec(), spec("batch"), spec("batch")),
            out_specs=spec(),
        )
        def step(state, params, x, y):
            own = jax.lax.pcast(params, "batch", to="varying")
            return tx.update(
                plain_gradient(own, x, y), state, params, class_losses_fn=class_losses_fn_of(x, y)
            )

        state, expected = tx.init(params), alone.init(params)
        for _ in range(2):
            gradient, state = step(state, params, *xy)
            twin, expected = update(alone, expected, params, *xy)
            assert_close(gradient, twin, 1e-12)


def program_flops(tx, **keywords):
    """XLA's count of a step of a network, whose gradient the step takes itself."""
    rng, labels = np.random.default_rng(0), jnp.arange(512) % len(COUNTS)
    params = [jnp.asarray(rng.standard_normal(shape) / 16, float) for shape in WIDTHS]
    images = jnp.asarray(rng.standard_normal((512, 256)), float)

    def losses_fn(params):
        hidden = images
        for kernel in params[:-1]:
            hidden = jax.nn.relu(hidden @ kernel)
        losses = jaxlt.losses.cross_entropy(hidden @ params[-1], labels)
        return jaxlt.class_losses(losses, labels, len(COUNTS))

    def step(params, state):
        gradient = jax.grad(lambda p: losses_fn(p).mean())(params)
        updates, state = tx.update(gradient, state, params, class_losses_fn=losses_fn, **keywords)
        return optax.apply_updates(params, updates), state

    analysis: Any = jax.jit(step).lower(params, tx.init(params)).compile().cost_analysis()
    return analysis["flops"]


WIDTHS = ((256, 256), (256, 256), (256, 256), (256, len(COUNTS)))


@pytest.mark.parametrize(
    ("name", "whole_steps"),
    soak_but([("focal_sam", 8 / 3)], [("sam", 2), ("imb_sam", 8 / 3), ("focal_sam", 8 / 3)]),
)
def test_cost_in_flops_of_sgd(name, whole_steps):
    """At k = 5 Focal-SAM costs 1.33 SGD steps: a backward pass counts for two forward ones."""

    def flops(phase):
        return program_flops(optax.chain(every(5, METHODS[name](), phase=phase), optax.sgd(0.1)))

    sgd = program_flops(optax.with_extra_args_support(optax.sgd(0.1)))
    mean = (flops("whole") + 4 * flops("reused")) / 5
    expected = (whole_steps + 4) / 5
    assert expected * 0.97 < mean / sgd < expected * 1.03


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2.0, jaxlt.sam(0.1)), TypeError, "k must be an integer of Python, got 2.0$"),
        ((True, jaxlt.sam(0.1)), TypeError, "k must be an integer of Python, got True$"),
        ((jaxlt.sam(0.1), 5), TypeError, "k must be an integer of Python, got Gradient"),
        ((0, jaxlt.sam(0.1)), ValueError, "k must be at least 1, got 0"),
        ((5, jaxlt.sam), TypeError, "method must be an optax transformation, such as jaxlt.sam"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        every(*arguments)


def test_an_injected_k_is_told_how_to_be_given():
    with pytest.raises(TypeError, match=r"^k must be .*: optax\.inject_hyper.* static_args='k'$"):
        every(jnp.array(2), jaxlt.sam(0.1))
    every(np.int64(2), jaxlt.sam(0.1))


def test_a_number_of_python_is_a_parameter():
    def losses_fn(w):
        return jaxlt.ClassLosses(jnp.stack([w**2, w]), jnp.ones(2))

    tx, gradient = every(2, jaxlt.sam(0.1)), 3.5
    state, found = tx.init(3.0), []
    for _ in range(2):
        result, state = tx.update(gradient, state, 3.0, class_losses_fn=losses_fn)
        found.append(float(result))
    # One dimension has no direction beside the gradient.
    np.testing.assert_allclose(found, [3.6, 3.5], rtol=1e-6)


def test_nothing_of_jaxlt_within():
    tx = every(2, optax.chain(optax.clip(1.0), optax.sgd(0.1)))
    with pytest.raises(ValueError, match=r"^method must be one of jaxlt's or hold one, got a "):
        tx.init(jnp.ones(2))
    within = optax.chain(jaxlt.sam(0.1), optax.clip(1.0))
    assert isinstance(every(2, within).init(jnp.ones(2)).inner_state[0], jaxlt.SharpnessState)


def test_bad_options():
    with pytest.raises(ValueError, match=r"^phase must be auto or whole with k = 1, got 'reused'"):
        every(1, jaxlt.sam(0.1), phase="reused")
    with pytest.raises(ValueError, match=r"^alpha must be at least 0 and finite, got -1"):
        every(5, jaxlt.sam(0.1), alpha=-1)
    with pytest.raises(ValueError, match=r"^phase must be one of auto, whole, reused, got 'x'"):
        every(5, jaxlt.sam(0.1), phase="x")
