"""Named recipes: each can be built, and holds the numbers of its source."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxlt
from experiments.build import build_loss, build_model, build_optimizer, build_regime
from experiments.recipe import Recipe
from experiments.recipes import PUBLISHED as RESULTS
from experiments.recipes import RECIPES, SOURCES
from experiments.recipes.tables import TABLES
from jaxlt import UsageError
from jaxlt.data import profile_counts
from jaxlt.training import Moment, make_state_fn, make_train_step

# From the table of optimisation recipes in the sources named in experiments/recipes.py.
PUBLISHED = {
    "focal_sam_cifar10": {"batch_size": 64, "weight_decay": 2e-4, "rho": 0.2, "sharpness": 0.5},
    "focal_sam_cifar100": {"weight_decay": 1e-3, "rho": 0.3, "gamma": 3.2, "sharpness": 0.8},
    "sse_sam_cifar100": {"lr": 0.01, "tail_rho": 0.1, "tail_threshold": 100, "switch_at": 0.7},
    "imb_sam_cifar100": {"lr": 0.01, "rho": 0.05, "tail_threshold": 20, "selection": "first"},
    "sam_ldam_drw_cifar10": {"rho": 0.8, "loss": "ldam", "reweight_epoch": 160},
    "sam_drw_cifar100": {"rho": 0.8, "batch_size": 128, "schedule": "ldam"},
    "cc_sam_released_cifar10": {"flat_ratio": 0.3, "radius_scale": 1e-6, "mixup": 1.0},
    "cc_sam_released_cifar100": {"flat_ratio": 0.5, "grad_norm": "per_leaf"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    recipe = RECIPES[name]
    assert {field: getattr(recipe, field) for field in PUBLISHED[name]} == PUBLISHED[name]
    assert recipe.epochs == 200
    assert name.endswith(recipe.dataset.removeprefix("tfds:"))


def test_every_recipe_says_where_it_comes_from():
    assert set(SOURCES) == set(RECIPES)
    assert set(RESULTS) <= set(RECIPES)
    assert all(SOURCES.values())


def test_every_place_of_a_table_has_a_recipe_but_second_stages_of_ldam():
    empty = {
        name
        for layout in TABLES.values()
        for _, row in layout.rows
        for _, column in layout.columns
        if (name := layout.cell(row, column)[0]) not in RECIPES
    }
    second = {name for name in empty if name.endswith("_ldam_drw_cifar100") and "2_" in name}
    # Nor is there a norm to take from a cosine classifier.
    assert empty - second == {"sn_2_gcl_cifar100", "sn_1_2_gcl_cifar100"}
    assert len(second) == 10


# Networks and imbalance factors change no type, nor does the data that a tower is tuned on.
_SAME = ("_digits", "_tiny_full_fashion", "_dinov2_fashion", "_clip_cifar100", "_clip_imagenet_lt")
_SAME += ("_clip_places_lt", "_clip_inaturalist")
DISTINCT = [name for name in RECIPES if "_if" not in name and not name.endswith(_SAME)]


@pytest.mark.parametrize("name", DISTINCT)
def test_one_step_of_every_stage_traces(name):
    recipe = RECIPES[name]
    model = "resnet10" if recipe.trainable == "last_block" else "mlp"
    recipe = dataclasses.replace(recipe, model="random:tiny" if recipe.adapted() else model)
    num_classes = 100 if "cifar100" in recipe.dataset else 10
    counts = profile_counts("exponential", 50.0, num_classes, 500)
    for stage, head in zip(recipe.stages, recipe.heads, strict=True):
        if stage.kind != "train":
            continue
        frozen = stage.batch_norm == "last_block"
        model = build_model(recipe, num_classes, (8, 8, 1), head, frozen_trunk_norm=frozen)
        optimizer = build_optimizer(stage, counts)
        regime = build_regime(stage, counts, first_step=0)
        state_fn = make_state_fn(model, optimizer, (8, 8, 1), regime.spectral_norm)
        state = jax.eval_shape(lambda make=state_fn: make(0))
        step = make_train_step(
            model, optimizer, build_loss(stage, counts), num_classes, regime=regime
        )
        images = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
        after, _ = jax.eval_shape(step, state, images, jax.ShapeDtypeStruct((4,), jnp.int32))
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_radius_changes_at_the_first_step_of_its_epochs():
    recipe = Recipe(
        method="sam", rho=0.05, rho_epochs=(2, 4), rho_values=(0.1, 0.5), batch_size=7, momentum=0
    )
    counts = (10, 5)
    optimizer = build_optimizer(recipe, counts)
    params = jnp.ones(3)
    state = optimizer.init(params)

    def class_losses_fn(params):
        return jaxlt.class_losses(params[:2] ** 2, jnp.arange(2), 2)

    radii = []
    for _ in range(recipe.num_steps(sum(counts), 5)):
        gradient = jax.grad(lambda p: class_losses_fn(p).mean())(params)
        _, state = optimizer.update(gradient, state, params, class_losses_fn=class_losses_fn)
        radii.append(round(float(optax.tree.get(state, "perturbation_norm")[0]), 6))
    # 15 images in batches of 7: epoch 2 begins with step 5, epoch 4 with step 9.
    assert radii == [0.05] * 5 + [0.1] * 4 + [0.5] * 2


def moment(step):
    return Moment(jnp.array(step), jax.random.key(0))


def test_deferred_weights_start_with_their_epoch():
    recipe = Recipe(reweight_epoch=3, batch_size=10)
    loss = build_loss(recipe, (90, 10))
    logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
    plain, weighted = loss(logits, labels, moment(29)), loss(logits, labels, moment(30))
    assert plain[0] == plain[1]
    assert weighted[1] > 8 * weighted[0]


@pytest.mark.parametrize(
    "fields", [{"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}, {"switch_at": 1.5}]
)
def test_impossible_numbers(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        Recipe(**fields)


def test_reweighted_losses_are_divided_by_the_batch_or_by_its_weights():
    counts, labels = (90, 10), jnp.array([0, 0, 0, 1])
    logits = jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [0.5, -0.5]])
    plain = jaxlt.losses.cross_entropy(logits, labels)
    weights = jaxlt.losses.class_balanced_weights(counts)[labels]
    means = {
        mean: float(build_loss(recipe, counts)(logits, labels, moment(0)).mean())
        for mean in ("batch", "weights")
        if (recipe := Recipe(reweight_epoch=0, reweight_mean=mean))
    }
    total = float((weights * plain).sum())
    assert means["batch"] == pytest.approx(total / 4)
    assert means["weights"] == pytest.approx(total / float(weights.sum()))
    assert not build_regime(Recipe(reweight_epoch=0, reweight_mean="weights"), counts, 0).row_losses
