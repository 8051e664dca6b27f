"""Named recipes: each can be built, and holds the numbers of its source."""

import jax
import jax.numpy as jnp
import pytest
from lanes import soak_but

from jaxlt import UsageError
from jaxlt.data import profile_counts
from jaxlt.recipes.built_stage import build_regime
from jaxlt.recipes.losses import LDAM
from jaxlt.recipes.named import PUBLISHED as RESULTS
from jaxlt.recipes.named import RECIPES, SOURCES, named
from jaxlt.recipes.named.tables import TABLES
from jaxlt.recipes.network import Encoder, ImageNetResNet, RandomEncoder, Small
from jaxlt.recipes.optimizer import MultiStep
from jaxlt.recipes.part import Part
from jaxlt.recipes.sources import TFDS
from jaxlt.recipes.stage import Stage
from jaxlt.training import make_state_fn, make_train_step

# From the table of optimization recipes in the sources that jaxlt/recipes/named names.
PUBLISHED = {
    "focal_sam_cifar10": {
        "batch_size": 64,
        "optimizer.weight_decay": 2e-4,
        "method.rho": 0.2,
        "method.sharpness_weight": 0.5,
    },
    "focal_sam_cifar100": {
        "optimizer.weight_decay": 1e-3,
        "method.rho": 0.3,
        "method.gamma": 3.2,
        "method.sharpness_weight": 0.8,
    },
    "sse_sam_cifar100": {
        "optimizer.lr": 0.01,
        "method.tail_rho": 0.1,
        "method.tail_threshold": 100,
        "method.switch_at": 0.7,
    },
    "imb_sam_cifar100": {
        "optimizer.lr": 0.01,
        "method.rho": 0.05,
        "method.tail_threshold": 20,
        "data.profile.selection": "first",
    },
    "sam_ldam_drw_cifar10": {"method.rho": 0.8, "loss": LDAM(), "reweighting.epoch": 160},
    "sam_drw_cifar100": {"method.rho": 0.8, "batch_size": 128, "optimizer.schedule": MultiStep()},
    "cc_sam_released_cifar10": {
        "method.flat_ratio": 0.3,
        "method.radius_scale": 1e-6,
        "augmentation.mixup": 1.0,
    },
    "cc_sam_released_cifar100": {"method.flat_ratio": 0.5, "method.grad_norm": "per_leaf"},
}


def at(part, path):
    for name in path.split("."):
        part = getattr(part, name)
    return part


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    recipe = RECIPES[name]
    assert {
        path: at(recipe if path.startswith("data.") else recipe.first, path)
        for path in PUBLISHED[name]
    } == PUBLISHED[name]
    assert recipe.first.epochs == 200
    assert isinstance(recipe.data.source, TFDS)
    assert name.endswith(recipe.data.source.dataset)


def test_every_recipe_says_where_it_comes_from():
    assert set(SOURCES) == set(RECIPES)
    assert set(RESULTS) <= set(RECIPES)
    assert all(SOURCES.values())


def test_a_recipe_is_had_by_its_name_alone():
    assert named("focal_sam_cifar100") is RECIPES["focal_sam_cifar100"]
    with pytest.raises(UsageError, match=r"such as (\w+ or )*focal_sam_cifar100( or \w+)*, got f"):
        named("focalsam_cifar100")
    with pytest.raises(UsageError, match=r"^recipe must be a named one, got 123$"):
        named("123")


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


def small(recipe):
    """The recipe with a network that traces quickly."""
    network, trained = recipe.network, [getattr(stage, "trainable", "") for stage in recipe.stages]
    if isinstance(network, Encoder):
        fields = {"adaptation": network.adaptation, "classifier": network.classifier}
        return recipe.replace(network=RandomEncoder(**fields, precision=network.precision))
    if "last_block" in trained:
        return recipe.replace(
            network=ImageNetResNet(architecture="resnet10", classifier=network.classifier)
        )
    return recipe.replace(network=Small(architecture="mlp", classifier=network.classifier))


def kinds_of(part):
    """A part without its numbers, which change no type; which of them are none or 0 may."""
    if isinstance(part, Part):
        fields = ((name, kinds_of(getattr(part, name))) for name in part.__struct_fields__)
        return (type(part), *fields)
    if isinstance(part, (bool, str)):
        return part
    return tuple(map(kinds_of, part)) if isinstance(part, tuple) else bool(part)


def stages_to_trace():
    """One stage of each kind: network, kind of classifier, and the stage's parts."""
    found = {}
    for name, recipe in RECIPES.items():
        shrunk = small(recipe)
        for number, (stage, head) in enumerate(zip(shrunk.stages, shrunk.heads, strict=True)):
            if isinstance(stage, Stage):
                key = (kinds_of(shrunk.network), head, kinds_of(stage))
                found.setdefault(key, (name, number))
    return list(found.values())


# Kinds of stages differ in little: every second will do, of encoders those on CIFAR-10 alone.
@pytest.mark.parametrize(
    ("name", "number"),
    soak_but(
        [
            (name, number)
            for name, number in stages_to_trace()
            if name.endswith("_clip_cifar10") or not isinstance(RECIPES[name].network, Encoder)
        ][::2],
        stages_to_trace(),
    ),
)
def test_one_step_of_every_kind_of_stage_traces(name, number):
    recipe = small(RECIPES[name])
    stage, head = recipe.stages[number], recipe.heads[number]
    num_classes = 10
    counts = profile_counts("exponential", 50.0, num_classes, 500)
    frozen = stage.batch_norm == "last_block"
    model = recipe.network.build(num_classes, (8, 8, 1), head, frozen_backbone_norm=frozen)
    optimizer = stage.build_optimizer(counts)
    regime = build_regime(stage, counts)
    state_fn = make_state_fn(model, optimizer, (8, 8, 1), regime.spectral_norm)
    state = jax.eval_shape(lambda: state_fn(0))
    step = make_train_step(model, optimizer, stage.build_loss(counts), num_classes, regime=regime)
    images = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    after, _ = jax.eval_shape(step, state, images, jax.ShapeDtypeStruct((4,), jnp.int32))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
