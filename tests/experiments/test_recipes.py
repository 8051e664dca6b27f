"""Named recipes: each can be built, and holds the numbers of its source."""

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxlt
from experiments.build import build_loss, build_model, build_optimizer
from experiments.recipe import Recipe
from experiments.recipes import RECIPES
from jaxlt import UsageError
from jaxlt.data import profile_counts
from jaxlt.training import Moment

# From the table of optimisation recipes in the sources named in experiments/recipes.py.
PUBLISHED = {
    "focal_sam_cifar10": {"batch_size": 64, "weight_decay": 2e-4, "rho": 0.2, "sharpness": 0.5},
    "focal_sam_cifar100": {"weight_decay": 1e-3, "rho": 0.3, "gamma": 3.2, "sharpness": 0.8},
    "sse_sam_cifar100": {"lr": 0.01, "tail_rho": 0.1, "tail_threshold": 100, "switch_at": 0.7},
    "imb_sam_cifar100": {"lr": 0.01, "rho": 0.05, "tail_threshold": 20, "selection": "first"},
    "sam_ldam_drw_cifar10": {"rho": 0.8, "loss": "ldam", "reweight_epoch": 160},
    "sam_drw_cifar100": {"rho": 0.8, "batch_size": 128, "schedule": "ldam"},
    "cc_sam_released_cifar10": {"flat_ratio": 0.3, "radius_scale": 1e-6, "imbalance_factor": 200},
    "cc_sam_released_cifar100": {"flat_ratio": 0.5, "grad_norm": "per_leaf"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    recipe = RECIPES[name]
    assert {field: getattr(recipe, field) for field in PUBLISHED[name]} == PUBLISHED[name]
    assert recipe.epochs == 200
    assert name.endswith(recipe.dataset.removeprefix("tfds:"))


@pytest.mark.parametrize("name", RECIPES)
def test_one_step_of_every_recipe_traces(name):
    recipe = RECIPES[name]
    num_classes = int(recipe.dataset.removeprefix("tfds:cifar"))
    counts = profile_counts(
        recipe.profile, recipe.imbalance_factor, num_classes, 50000 // num_classes
    )
    model = build_model(recipe, num_classes, (32, 32, 3))
    loss = build_loss(recipe, counts)
    optimizer = build_optimizer(recipe, counts)

    def step(images, labels):
        variables = model.init(jax.random.key(0), images, train=True)
        params = variables.pop("params")

        def class_losses_fn(params):
            logits, _ = model.apply(
                {"params": params, **variables}, images, train=True, mutable=["batch_stats"]
            )
            return jaxlt.class_losses(loss(logits, labels, 0), labels, num_classes)

        gradient = jax.grad(lambda p: class_losses_fn(p).mean())(params)
        updates, _ = optimizer.update(
            gradient, optimizer.init(params), params, class_losses_fn=class_losses_fn
        )
        return params, updates

    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    params, updates = jax.eval_shape(step, images, jax.ShapeDtypeStruct((4,), jnp.int32))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, updates)


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
