"""Each program of the page on loops trains as Focal-SAM's equation says, in its own library."""

import functools
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from eight_devices import run_with_eight_devices
from jax.extend.core import jaxprs_in_params
from lanes import soak_but
from small_problems import largest_difference

import jaxlt

PAGE = Path(jaxlt.__file__).parent / "methods" / "README.md"
BLOCKS = {
    heading: re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for heading, text in re.findall(
        r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE
    )
}
COUNTS = np.array([500, 50, 5])
LABELS = np.array([0] * 28 + [1] * 3 + [2])


@functools.cache
def page_images():
    with jax.ensure_compile_time_eval():
        return jax.random.normal(jax.random.key(0), (32, 8))


@pytest.fixture(autouse=True, scope="module")
def strict_promotion():
    """Other libraries promote as they like."""


def begun(heading, block=0):
    """A program's names before its loop, and the rest of it."""
    head, loop, steps = BLOCKS[heading][block].partition("\nfor ")
    names = {}
    exec(head, names)
    return names, loop + steps


def per_example(logits):
    """Logit-adjusted losses."""
    adjusted = jax.nn.log_softmax(logits + np.log(COUNTS / COUNTS.sum()))
    return -jnp.take_along_axis(adjusted, LABELS[:, None], axis=1)[:, 0]


def added(one, other, factor=1.0):
    return jax.tree.map(lambda a, b: a + factor * b, one, other)


def focal_gradient(logits_fn, losses_of=per_example):
    """Focal-SAM of the programs, by `jax.grad` alone, at parameters and a step; with the loss."""
    share = jnp.asarray(0.8 * (1 - COUNTS / COUNTS.sum()) ** 2.0)[LABELS] / 32

    @jax.jit
    def gradient(params, step=0):
        def loss(params, weights):
            return (weights * losses_of(logits_fn(params, step))).sum()

        direction = jax.grad(loss)(params, share)
        norm = jnp.sqrt(sum(jnp.square(d).sum() for d in jax.tree.leaves(direction)))
        sharp = jax.grad(loss)(added(params, direction, 0.05 / norm), share)
        rest = jax.grad(loss)(params, 1 / 32 - share)
        return loss(params, jnp.full(32, 1 / 32)), added(rest, sharp)

    return gradient


def ten_steps(gradient_fn, params):
    """SGD with momentum 0.9 at rate 0.1: the parameters before each step and at the end."""
    path, momentum = [params], jax.tree.map(jnp.zeros_like, params)
    for step in range(10):
        momentum = added(gradient_fn(path[-1], step)[1], momentum, 0.9)
        path.append(added(path[-1], momentum, -0.1))
    return path


def check_trained(params, path, tolerance=1e-5):
    chex.assert_trees_all_close(params, path[-1], atol=tolerance, rtol=0)
    # The perturbation is a part of it that the tolerance would not hide.
    assert largest_difference(path[0], path[-1]) > 100 * tolerance


def two_layers(params, step):
    return jax.nn.relu(page_images() @ params["hidden"]) @ params["classifier"]


def test_linen():
    names, loop = begun("Flax linen with TrainState")
    start, network = names["state"], names["network"]

    def applied(params, step):
        key = jax.random.fold_in(jax.random.key(2), step)
        variables = {"params": params, "batch_stats": start.batch_stats}
        return network.apply(
            variables, page_images(), train=True, rngs={"dropout": key}, mutable="batch_stats"
        )

    exec(loop, names)
    state = names["state"]
    path = ten_steps(focal_gradient(lambda p, step: applied(p, step)[0]), start.params)
    check_trained(state.params, path)
    mean = np.zeros(32)
    for params in path[:-1]:
        hidden = page_images() @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
        mean = 0.99 * mean + 0.01 * hidden.mean(axis=0)
    np.testing.assert_allclose(state.batch_stats["BatchNorm_0"]["mean"], mean, atol=1e-6)
    assert state.step == state.opt_state[0].count == 10
    with pytest.raises(ValueError, match="class_losses_fn"):
        state.apply_gradients(grads=state.params, class_losses_fn=lambda params: None)


def test_nnx():
    names, loop = begun("Flax NNX")
    nnx, model = names["nnx"], names["model"]
    key = model.dropout.rngs.key[...]
    start = nnx.to_pure_dict(nnx.as_pure(nnx.state(model, nnx.Param)))

    def hidden(params):
        return page_images() @ params["hidden"]["kernel"] + params["hidden"]["bias"]

    def logits(params, step):
        x = hidden(params)
        x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)
        x = jax.nn.relu(x * params["norm"]["scale"] + params["norm"]["bias"]) / 0.8
        x = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, step), 0.8, x.shape), x, 0)
        return x @ params["classifier"]["kernel"] + params["classifier"]["bias"]

    exec(loop, names)
    path = ten_steps(focal_gradient(logits), start)
    check_trained(nnx.to_pure_dict(nnx.as_pure(nnx.state(model, nnx.Param))), path)
    means = [hidden(params).mean(axis=0) for params in path[:-1]]
    mean = functools.reduce(lambda old, new: 0.99 * old + 0.01 * new, means, jnp.zeros(32))
    np.testing.assert_allclose(model.norm.mean[...], mean, atol=1e-6)


def test_equinox():
    pytest.importorskip("equinox")
    names, loop = begun("Equinox")
    start = names["params"]

    def logits(params, step):
        first, second = params.layers
        return (
            jax.nn.relu(page_images() @ first.weight.T + first.bias) @ second.weight.T + second.bias
        )

    exec(loop, names)
    path = ten_steps(focal_gradient(logits), start)
    check_trained(names["params"], path)
    np.testing.assert_array_equal(names["model"].layers[0].weight, names["params"].layers[0].weight)


def test_haiku():
    pytest.importorskip("haiku")
    names, loop = begun("Haiku")
    start, stats, network = names["params"], names["batch_stats"], names["network"]

    @jax.jit
    def applied(params, stats, step):
        key = jax.random.fold_in(jax.random.key(2), step)
        return network.apply(params, stats, key, page_images(), train=True)

    exec(loop, names)
    path = ten_steps(focal_gradient(lambda p, step: applied(p, stats, step)[0]), start)
    check_trained(names["params"], path)
    for step, params in enumerate(path[:-1]):
        _, stats = applied(params, stats, step)
    chex.assert_trees_all_close(names["batch_stats"], stats, atol=1e-6)


def test_jmp():
    """Near 32 bits; gradients too small for float16 arrive; what is not finite is passed over."""
    pytest.importorskip("jmp")
    heading = "Mixed precision with jmp"
    names, loop = begun(heading)
    start = names["params"], names["opt_state"], names["loss_scale"], page_images(), LABELS
    exec(loop, names)
    check_trained(names["params"], ten_steps(focal_gradient(two_layers), start[0]), 2e-3)
    _, expected = focal_gradient(two_layers)(start[0])

    head, *_ = BLOCKS[heading][0].partition("\nfor ")
    exec(head.replace("losses = jaxlt", "losses = 1e-7 * jaxlt"), names)

    def gradient(loss_scale):
        _, state, *_ = names["train_step"](*start[:2], loss_scale, page_images(), LABELS)
        return jax.tree.map(lambda momentum: 1e7 * momentum, state[1][0].trace)

    assert largest_difference(gradient(start[2]), expected) < 1e-3
    assert not any(g.any() for g in gradient(names["jmp"].NoOpLossScale()).values())

    after = names["train_step"](*start[:3], page_images().at[0].set(jnp.nan), LABELS)
    chex.assert_trees_all_equal(after[:2], start[:2])
    assert after[2].loss_scale == start[2].loss_scale / 2


def arrays(jaxpr):
    """Sizes of all arrays that a traced program makes, in whatever it calls."""
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from arrays(inner)


def test_accumulation_within_the_losses_is_the_whole_batch_in_the_memory_of_a_part():
    names, loop = begun("Gradient accumulation")
    start = names["params"], names["opt_state"]
    exec(loop, names)
    check_trained(names["params"], ten_steps(focal_gradient(two_layers), start[0]))
    traced = jax.make_jaxpr(names["train_step"])(*start, page_images(), LABELS)
    # Less than the hidden layer of 32 images.
    assert max(arrays(traced.jaxpr)) < 32 * 32


def test_accumulation_behind_a_method_takes_the_mean_of_the_parts_own_gradients():
    names = {}
    exec(BLOCKS["Gradient accumulation"][1], names)
    tx, sam = names["tx"], jaxlt.sam(0.05)
    params = jnp.full((8, 3), 0.1)
    state, gradients, moves = tx.init(params), [], []

    @jax.jit
    def step(state, images, labels):
        def class_losses_fn(params):
            losses = jaxlt.losses.cross_entropy(images @ params, labels)
            return jaxlt.class_losses(losses, labels, 3)

        grads = jax.grad(lambda p: class_losses_fn(p).mean())(params)
        own, _ = sam.update(grads, sam.init(params), params, class_losses_fn=class_losses_fn)
        return tx.update(grads, state, params, class_losses_fn=class_losses_fn), own

    for images, labels in zip(
        np.split(page_images(), 4), np.split(np.roll(LABELS, 5), 4), strict=True
    ):
        (updates, state), own = step(state, images, labels)
        gradients.append(own)
        moves.append(updates)
    assert not any(updates.any() for updates in moves[:3])
    np.testing.assert_allclose(moves[3], -0.1 * sum(gradients) / 4, atol=1e-6)


def test_many_devices():
    (program,) = BLOCKS["Many devices"]
    run_with_eight_devices(
        program
        + """
import numpy as np
assert jax.device_count() == 8
assert one["hidden"].sharding.mesh.axis_types == (jax.sharding.AxisType.Explicit,)
alone, alone_state = params, opt_state
for _ in range(10):
    alone, alone_state, loss = step(alone, alone_state, images, labels)
assert np.abs(alone["hidden"] - params["hidden"]).max() > 1e-2
for spread in (one, other):
    for name, kernel in alone.items():
        np.testing.assert_allclose(spread[name], kernel, rtol=0, atol=1e-5)
"""
    )


def test_each_optimizer_behind_takes_the_sharpness_aware_gradient():
    names = {}
    exec(BLOCKS["Behind a method"][0], names)
    gradient = focal_gradient(two_layers)
    for name, optimizer in names["optimizers"].items():
        update = jax.jit(optax.with_extra_args_support(optimizer).update)
        params, state = names["start"], optimizer.init(names["start"])
        for _ in range(10):
            loss, grads = gradient(params)
            updates, state = update(grads, state, params, value=loss)
            params = optax.apply_updates(params, updates)
        trained, (_, trained_state) = names["trained"][name]
        chex.assert_trees_all_close(trained, params, atol=1e-4, custom_message=name)
        chex.assert_trees_all_close(trained_state, state, atol=1e-4, custom_message=name)
    assert names["averaged"].keys() == names["start"].keys()


AROUND = {
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, 0.1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "conditionally_transform": lambda tx: optax.conditionally_transform(
        tx, lambda step: jnp.asarray(step) >= 0
    ),
    "named_chain": lambda tx: optax.named_chain(("all", tx)),
}


@pytest.mark.parametrize("name", soak_but(["schedule_free"], AROUND))
def test_what_the_page_says_may_stand_around_a_method_changes_no_update(name):
    names = {}
    head, *_ = BLOCKS["Behind a method"][0].partition("\ndef train")
    exec(head, names)
    method, fn = names["method"], names["losses_fn"]
    around = AROUND[name](optax.chain(method, optax.sgd(0.1)))
    behind = optax.chain(method, AROUND[name](optax.sgd(0.1)))
    ends = []
    for tx in (around, behind):
        params, state = names["start"], tx.init(names["start"])
        for _ in range(2):
            grads = jax.grad(lambda p: fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, class_losses_fn=fn)
            params = optax.apply_updates(params, updates)
        ends.append(params)
    chex.assert_trees_all_close(*ends, atol=1e-7)


def sam_gradient(params):
    """SAM of the linear classifier of the page's last programs, by `jax.grad` alone."""

    def loss(params):
        scores = jax.nn.log_softmax(page_images() @ params["kernel"] + params["bias"])
        return -jnp.take_along_axis(scores, LABELS[:, None], axis=1).mean()

    direction = jax.grad(loss)(params)
    norm = jnp.sqrt(sum(jnp.square(d).sum() for d in direction.values()))
    return jax.grad(loss)(added(params, direction, 0.05 / norm))


def test_lookahead():
    names, loop = begun("Behind a method", 1)
    fast = slow = names["params"].fast
    exec(loop, names)
    for step in range(10):
        fast = added(fast, sam_gradient(fast), -0.1)
        if step % 5 == 4:
            fast = slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
    chex.assert_trees_all_close(names["params"].fast, fast, atol=1e-6)
    chex.assert_trees_all_close(names["params"].slow, slow, atol=1e-6)


def test_the_average_follows_the_weights():
    names, loop = begun("An average of the weights")
    params = names["params"]
    exec(loop, names)
    path = ten_steps(lambda params, step: (None, sam_gradient(params)), params)
    average = functools.reduce(
        lambda old, new: added(old, added(new, old, -1), 0.1), path[1:], params
    )
    chex.assert_trees_all_close(names["average"], average, atol=1e-6)
    check_trained(names["params"], path)


def test_a_restored_state_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(BLOCKS["Checkpoints with Orbax"][0], names)
    params, state, step = names["params"], names["opt_state"], names["train_step"]
    forgotten, fresh = params, names["tx"].init(params)
    for _ in range(10):
        params, state = step(params, state, page_images(), LABELS)
        forgotten, fresh = step(forgotten, fresh, page_images(), LABELS)
    restored = names["restored_params"], names["restored_state"]
    chex.assert_trees_all_equal(restored, (params, state))
    assert state[0].count == 20
    assert jnp.abs(forgotten["kernel"] - params["kernel"]).max() > 1e-3


def test_each_program_of_the_page_has_a_test():
    assert {heading: len(blocks) for heading, blocks in BLOCKS.items() if blocks} == {
        "Flax linen with TrainState": 1,
        "Flax NNX": 1,
        "Equinox": 1,
        "Haiku": 1,
        "Mixed precision with jmp": 1,
        "Gradient accumulation": 2,
        "Many devices": 1,
        "Behind a method": 2,
        "An average of the weights": 1,
        "Checkpoints with Orbax": 1,
    }
