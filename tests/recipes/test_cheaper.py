"""Whole steps now and then, and directions from a part of the batch, as options of a method."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlt
from jaxlt import UsageError
from jaxlt.recipes import (
    CCSAM,
    SAM,
    SSESAM,
    Augmentation,
    Data,
    Digits,
    Evaluation,
    Execution,
    Exponential,
    FocalSAM,
    ImbSAM,
    Optimizer,
    RandomPerturbation,
    Recipe,
    Small,
    Stage,
)
from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members
from jaxlt.recipes.built_stage import StepForm
from jaxlt.recipes.methods import REUSED
from jaxlt.training import Interrupted, make_state_fn, make_train_step
from jaxlt.training.step.ascent import first_images
from jaxlt.training.step.state import method_state

IMAGES = np.random.default_rng(0).standard_normal((4, 16, 8, 8, 1)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 10, (4, 16)).astype(np.int32)


def recipe_of(method, epochs=3, **fields):
    return Recipe(
        data=Data(source=Digits(), profile=Exponential(imbalance_factor=10)),
        network=Small(architecture="mlp"),
        stages=(
            Stage(
                method=method,
                optimizer=Optimizer(lr=0.05),
                epochs=epochs,
                batch_size=64,
                **fields,
            ),
        ),
        evaluation=Evaluation(epochs=1),
    )


def built_stage(method, **fields):
    return BuiltRecipe(recipe_of(method, **fields)).stages[0]


def losses_and_state(stage, forms):
    """Takes one step of each form."""
    state, losses = stage.initial_state(0), []
    steps = {form: jax.jit(stage.step(form)) for form in set(forms)}
    for form, images, labels in zip(forms, IMAGES, LABELS, strict=False):
        state, loss = steps[form](state, images, labels)
        losses.append(float(loss))
    return losses, state


def test_the_forms_of_the_steps_are_the_one_program_with_a_conditional():
    method = FocalSAM(rho=0.1)
    stage = built_stage(method.replace(every=3, alpha=0.2))
    forms = [stage._forms.choose(step, LABELS[:1]) for step in range(4)]
    whole, reused = StepForm(0, None), StepForm(REUSED, None)
    assert forms == [whole, reused, reused, whole]
    losses, state = losses_and_state(stage, forms)

    counts, clock = stage.class_counts, stage.training.clock(sum(stage.class_counts))
    link = jaxlt.every(3, method.build(counts, clock), alpha=0.2)
    optimizer = optax.chain(link, stage.training.optimizer.build(clock))
    loss = stage.training.build_loss(counts)
    step = jax.jit(make_train_step(stage.model, optimizer, loss, len(counts)))
    one = make_state_fn(stage.model, optimizer, (8, 8, 1))(0)
    for images, labels, found in zip(IMAGES, LABELS, losses, strict=True):
        clean = stage.model.apply({"params": one.params}, images, train=True)
        mean = jaxlt.losses.cross_entropy(jnp.asarray(clean), jnp.asarray(labels)).mean()
        one, own = step(one, images, labels)
        # Of each step, not of the last whole one.
        np.testing.assert_allclose([own, found], mean, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(one), strict=True):
        if jnp.issubdtype(ours.dtype, jnp.floating):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_phase_of_the_method_begins_with_the_next_whole_step():
    forms = built_stage(SSESAM(every=3, switch_at=0.5), epochs=2)._forms
    assert forms.boundaries == (8,)
    chosen = [forms.choose(step, LABELS[:1]) for step in range(6, 11)]
    assert [form.phase for form in chosen] == [0, REUSED, REUSED, 1, REUSED]


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path):
    """Between two whole steps, whose stored direction the checkpoint holds."""
    recipe = recipe_of(SAM(rho=0.1, every=4), epochs=2)
    execution = Execution("device", measure_every=1)

    def run(name, callbacks=()):
        built = BuiltRecipe(recipe, execution)
        train_members(built, [Member(0, tmp_path / name)], label=name, callbacks=callbacks)

    def stop(record):
        if record["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    run("whole")
    with pytest.raises(Interrupted):
        run("stopped", [stop])
    run("stopped")
    records = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert records[0] == records[1]
    radii = [json.loads(line).get("measurement", {}) for line in records[0].splitlines()]
    assert len([one for one in radii if "perturbation_norm" in one]) > 8


def test_members_of_an_ensemble_are_runs_of_their_own(tmp_path):
    recipe = recipe_of(SAM(rho=0.1, every=3), epochs=1)
    for mode in ("together", "apart"):
        built = BuiltRecipe(recipe, Execution("device", mode, measure_every=0))
        members = [Member(seed, tmp_path / mode / str(seed)) for seed in range(2)]
        train_members(built, members, label=mode)
    for seed in range(2):
        one, other = (
            json.loads((tmp_path / mode / str(seed) / "result.json").read_text())
            for mode in ("together", "apart")
        )
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


def test_the_first_images_of_a_batch_give_the_direction():
    """Of fifteen images eight: SAM by hand, with a plain step behind."""
    stage = built_stage(SAM(rho=0.5, ascent_share=0.5))
    before, images, labels = stage.initial_state(0), IMAGES[0, :15], jnp.asarray(LABELS[0, :15])
    after, loss = jax.jit(stage.step(StepForm(0, None)))(before, images, labels)

    @jax.jit
    @jax.value_and_grad
    def of_images(params, images, labels):
        logits = stage.model.apply({"params": params}, images, train=True)
        return jaxlt.losses.cross_entropy(jnp.asarray(logits), labels).mean()

    _, ascent = of_images(before.params, images[:8], labels[:8])
    length = optax.tree.norm(ascent)
    moved = jax.tree.map(lambda w, g: w + 0.5 * g / length, before.params, ascent)
    _, gradient = of_images(moved, images, labels)
    sgd = stage.training.optimizer.build(stage.training.clock(sum(stage.class_counts)))
    updates, _ = sgd.update(gradient, sgd.init(before.params), before.params)
    for ours, theirs in zip(
        jax.tree.leaves(after.params),
        jax.tree.leaves(optax.apply_updates(before.params, updates)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, of_images(before.params, images, labels)[0], rtol=1e-6)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
@pytest.mark.parametrize("method", [ImbSAM(ascent_share=0.3), SSESAM(ascent_share=0.3)])
def test_groups_without_images_in_the_part_are_not_perturbed(method, mixup):
    stage = built_stage(method, augmentation=Augmentation(mixup=mixup))
    tail = np.flatnonzero(method.tail(stage.class_counts))
    labels = np.repeat([0, tail[0]], [5, 11]).astype(np.int32)
    state, _ = jax.jit(stage.step(StepForm(0, None)))(stage.initial_state(0), IMAGES[0], labels)
    norms = method_state(state.opt_state).perturbation_norm
    # With mixup a part of each image belongs to the tail.
    assert (norms[-1] > 0) == (mixup > 0)
    assert np.isfinite(norms).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_chunks_are_of_one_step_on_any_device(monkeypatch):
    monkeypatch.setattr("jaxlt.recipes.built_stage.steps_per_chunk", lambda sent: 50)
    for every, longest in ((1, 7), (2, 1)):
        built = BuiltRecipe(recipe_of(SAM(every=every)))
        program = built.stages[0].program(built.pipeline(0, 0))
        assert next(program.cut(0, 7)) == (0, 7, longest)


def test_the_defaults_add_nothing_to_the_state():
    sam = built_stage(SAM())
    cheaper = built_stage(SAM(every=2))
    numbers = [
        sum(
            leaf.size
            for leaf in jax.tree.leaves(stage.optimizer.init(stage.initial_state(0).params))
        )
        for stage in (sam, cheaper)
    ]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(sam.initial_state(0).params))
    assert numbers[1] == numbers[0] + parameters + 1


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (SAM, {"every": 0}, "every must be an integer of at least 1, got 0"),
        (CCSAM, {"every": 2.5}, "every must be an integer of at least 1, got 2.5"),
        (FocalSAM, {"ascent_share": 0}, r"ascent_share must be in \(0, 1\], got 0"),
        (SSESAM, {"ascent_share": 1.5}, r"ascent_share must be in \(0, 1\], got 1.5"),
        (RandomPerturbation, {"ascent_share": 0.5}, "ascent_share must be 1 where no image"),
    ],
)
def test_mistakes_are_told_in_a_line(kind, fields, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        kind(**fields)


@pytest.mark.parametrize(
    ("share", "size", "images"),
    [(0.5, 9, 5), (0.1, 30, 3), (0.07, 100, 7), (1e-3, 8, 1), (1, 8, 8)],
)
def test_the_part_is_the_share_rounded_up(share, size, images):
    part = first_images((jnp.arange(size), jnp.arange(size)), share)
    np.testing.assert_array_equal(part[1], np.arange(images))
