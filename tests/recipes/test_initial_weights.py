"""Runs that begin with the weights of a file, and what Places-LT's recipe trains of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import soak_but
from safetensors.numpy import save_file

from jaxlt import UsageError
from jaxlt.models import ResNet, create_model
from jaxlt.models.weights.pretrained import load_initial_weights
from jaxlt.recipes.built_recipe import BuiltRecipe, Member
from jaxlt.recipes.built_stage import build_regime
from jaxlt.recipes.methods import CCSAM, SAM, SGD, FocalSAM
from jaxlt.recipes.named import RECIPES, vary
from jaxlt.recipes.network import ImageNetResNet, Small
from jaxlt.recipes.parameters import last_block, perturbed, trained
from jaxlt.recipes.stage import Stage
from jaxlt.training import make_state_fn, make_train_step

DIGITS = vary(
    RECIPES["sgd_digits"],
    network=ImageNetResNet(architecture="resnet10"),
    batch_size=8,
    shift="none",
)
PLACES = {"trainable": "last_block", "batch_norm": "last_block"}
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def from_file(path, **fields):
    return vary(DIGITS, network=DIGITS.network.replace(weights=str(path), **fields))


def small(**fields):
    return ResNet(**{"num_classes": 3, "blocks": (1, 1, 1, 2), "width": 4, **fields})


def variables_of(model, shape, seed=0):
    image, rng = jnp.zeros((1, *shape)), np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)


def as_torch(variables):
    """The tensors of a network under torchvision's names."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _, *modules, last = (key.key for key in path)
        names = ["fc" if name == "classifier" else name.replace("_", ".") for name in modules]
        value = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
        tensors[".".join([*names, str(LEAVES.get(last, last))])] = np.ascontiguousarray(value)
    return tensors


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The weights of another ResNet-10 for the digits, and their file."""
    model = DIGITS.network.build(10, (8, 8, 1))
    variables = variables_of(model, (8, 8, 1), seed=9)
    path = tmp_path_factory.mktemp("published") / "resnet10.safetensors"
    save_file(as_torch(variables), path)
    return variables, path


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def drawn():
    """The state in which a run of seed 3 without a file begins."""
    return BuiltRecipe(DIGITS).stages[0].initial_state(3)


@pytest.mark.parametrize("last_block_weights", [True, False])
def test_a_run_begins_with_the_files_weights(published, drawn, last_block_weights):
    variables, path = published
    recipe = from_file(path, last_block_weights=last_block_weights)
    state = BuiltRecipe(recipe).stages[0].initial_state(3)
    for collection in ("params", "batch_stats"):
        mine = getattr(drawn, collection)
        for name, module in getattr(state, collection).items():
            stays = name == "layer4_0" and not last_block_weights
            assert_equal(module, mine[name] if stays else variables[collection][name])
    assert moved(state.params["conv1"], drawn.params["conv1"])
    assert_equal(state.opt_state, drawn.opt_state)


def test_a_run_is_of_its_files_contents(tmp_path, published):
    variables, path = published
    recipe, member = from_file(path), Member(0, tmp_path / "run")
    BuiltRecipe(recipe).workdir(member)
    written = json.loads((member.path / "recipe.json").read_text())
    assert written["contents"]["weights"].startswith("sha256:")
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(path.read_bytes())
    same = from_file(moved)
    assert same.identity()["contents"] == recipe.identity()["contents"]
    BuiltRecipe(same).workdir(member)
    save_file(as_torch(jax.tree.map(lambda x: x + 1, variables)), moved)
    with pytest.raises(UsageError, match=r"got another: contents\.weights is 'sha256:"):
        BuiltRecipe(same).workdir(member)


def test_a_directory_of_weights_does(tmp_path, published):
    variables, path = published
    (tmp_path / "model.safetensors").write_bytes(path.read_bytes())
    recipe = from_file(tmp_path)
    state = BuiltRecipe(recipe).stages[0].initial_state(3)
    assert_equal(state.params["conv1"], variables["params"]["conv1"])
    before = recipe.identity()["contents"]
    (tmp_path / "model.safetensors").write_bytes(path.read_bytes() + b"0")
    assert recipe.identity()["contents"] != before


def test_a_file_that_is_not_there_is_refused(tmp_path):
    recipe = from_file(tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"weights .*none.pth must be a readable file"):
        recipe.identity()
    with pytest.raises(UsageError, match=r"none.pth must be a readable safetensors"):
        BuiltRecipe(recipe)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x: x.pop("layer3.0.bn1.weight"),
            "must hold the network's tensor layer3.0.bn1.weight",
        ),
        (lambda x: x.update(extra=np.zeros(1)), "got 1 others, the first of them extra"),
        (
            lambda x: x.update({"conv1.weight": np.zeros((4, 1, 7, 7))}),
            "tensor conv1.weight in .* must be of shape",
        ),
    ],
)
def test_everything_but_the_classifier_must_match(tmp_path, change, words):
    tensors = as_torch(variables_of(small(), (32, 32, 3)))
    change(tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match=words):
        load_initial_weights(tmp_path / "x.safetensors", variables_of(small(), (32, 32, 3)))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [({}, True), ({"num_classes": 5}, False), ({"classifier": "cosine"}, False)],
)
def test_the_files_classifier_is_used_where_it_fits(tmp_path, fields, kept):
    path = tmp_path / "x.safetensors"
    source = variables_of(small(), (32, 32, 3))
    save_file(as_torch(source), path)
    template = variables_of(small(**fields), (32, 32, 3), seed=1)
    found = load_initial_weights(path, template)
    assert ("classifier" in found["params"]) == kept
    wanted = {name: x for name, x in source["params"].items() if kept or name != "classifier"}
    assert_equal(found["params"], wanted)
    without = {name: x for name, x in as_torch(source).items() if not name.startswith("fc.")}
    save_file(without, path)
    assert "classifier" not in load_initial_weights(path, template)["params"]


def test_the_last_block_is_that_of_the_highest_number():
    names = ["bn1", "classifier", "conv1", "layer3_35", "layer4_0", "layer4_10", "layer4_2"]
    assert last_block(dict.fromkeys(names)) == "layer4_10"
    with pytest.raises(UsageError, match="network must be a ResNet where its last block is named"):
        last_block({"Dense_0": 0, "classifier": 0})


def modules_of(tree):
    return {path[0].key for path, chosen in jax.tree_util.tree_leaves_with_path(tree) if chosen}


@pytest.mark.parametrize("scope", ["all", "classifier"])
def test_what_is_trained_and_what_is_perturbed(scope):
    params = variables_of(small(), (32, 32, 3))["params"]
    trainable = PLACES["trainable"]
    assert modules_of(trained(trainable, params)) == {"layer4_1", "classifier"}
    assert modules_of(perturbed(trainable, scope, params)) == (
        {"classifier"} if scope == "classifier" else {"layer4_1", "classifier"}
    )


def moved(after, before):
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), after, before)
    return modules_of(changed)


@pytest.mark.parametrize(
    ("method", "batch_norm"),
    soak_but(
        [(CCSAM(), "last_block")],
        [(SGD(), "running"), (FocalSAM(), "last_block"), (CCSAM(), "last_block")],
    ),
)
def test_a_step_moves_the_last_block_and_its_statistics_alone(method, batch_norm):
    stage = Stage(trainable="last_block", batch_norm=batch_norm, method=method)
    program, initial_state = compiled_step(stage)
    before = initial_state(0)
    images = np.random.default_rng(0).normal(size=BATCH)
    after, loss = program(before, jnp.asarray(images, jnp.float32), jnp.arange(BATCH[0]) % 3)
    assert np.isfinite(loss)
    assert moved(after.params, before.params) == {"layer4_1", "classifier"}
    renewed = {"layer4_1"} if batch_norm == "last_block" else set()
    assert moved(after.batch_stats, before.batch_stats) == renewed


BATCH, COUNTS = (8, 32, 32, 3), (50, 20, 5)


def compiled_step(stage, model=None):
    model = model or small(frozen_backbone_norm=stage.batch_norm == "last_block")
    optimizer = stage.build_optimizer(COUNTS)
    regime = build_regime(stage, COUNTS, first_step=0)
    step = make_train_step(model, optimizer, stage.build_loss(COUNTS), 3, regime=regime)
    state_fn = make_state_fn(model, optimizer, BATCH[1:])
    state = jax.eval_shape(lambda: state_fn(0))
    images = jax.ShapeDtypeStruct(BATCH, jnp.float32)
    labels = jax.ShapeDtypeStruct(BATCH[:1], jnp.int32)
    return jax.jit(step).lower(state, images, labels).compile(), state_fn


def flops_and_memory(stage, model=None):
    program = compiled_step(stage, model)[0]
    return program.cost_analysis()["flops"], program.memory_analysis().temp_size_in_bytes


@pytest.mark.soak
def test_a_stage_of_the_last_block_costs_a_forward_pass_below_it():
    """So SAM, whose passes share the one below the block, costs little more than SGD."""
    whole, memory = flops_and_memory(Stage())
    images = jnp.zeros(BATCH)
    shapes = jax.eval_shape(lambda: small().init(jax.random.key(0), images, train=False))
    evaluate = jax.jit(lambda variables: small().apply(variables, images, train=False))
    forward = evaluate.lower(shapes).compile().cost_analysis()["flops"]
    for method, passes in ((SGD(), 3), (SAM(), 6)):
        block, less = flops_and_memory(Stage(**PLACES, method=method))
        # The block has 2 x 17 x 16^2 weights with products at one position of eight images.
        products = 2 * 8 * 17 * 32**2
        assert block == pytest.approx(forward + (passes - 1) * products, rel=0.1)
        assert block < 0.5 * whole
        assert less < 0.6 * memory


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Stage(trainable="last_block"),
            "batch_norm must be last_block or running",
        ),
        (
            lambda: ImageNetResNet(last_block_weights=False),
            "last_block_weights must be true without weights, got false",
        ),
        (
            lambda: create_model("mlp", 3, image_shape=(8, 8, 1), remat=True),
            "model must be one of resnet10, .* with remat, got 'mlp'",
        ),
        (
            lambda: BuiltRecipe(vary(DIGITS, network=Small(architecture="mlp"), **PLACES)),
            "model must be one of resnet10, .* with batch norm that is frozen",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, words):
    with pytest.raises(UsageError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
