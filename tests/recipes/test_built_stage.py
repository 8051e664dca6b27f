"""What each second stage leaves alone and what it changes, on the digits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but
from sklearn.neighbors import NearestCentroid

from jaxlt import UsageError
from jaxlt.recipes.built_recipe import BuiltRecipe, Member
from jaxlt.recipes.built_stage import StepForm, build_regime
from jaxlt.recipes.data import ClassAware
from jaxlt.recipes.losses import PaperAdversary, ReleasedAdversary
from jaxlt.recipes.methods import CCSAM, SAM, RandomPerturbation
from jaxlt.recipes.named import RECIPES, followed_by, vary
from jaxlt.recipes.network import ImageNetResNet, Small
from jaxlt.recipes.parameters import last_block
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm
from jaxlt.recipes.stage_ends import leave
from jaxlt.training import make_state_fn, make_train_step, train

FIRST = vary(
    RECIPES["sgd_digits"],
    network=Small(architecture="mlp"),
    epochs=3,
    evaluation=RECIPES["sgd_digits"].evaluation.replace(epochs=3),
)
BALANCED = vary(
    Stage(trainable="classifier", sampler=ClassAware(), epochs=2, batch_size=64),
    shift="none",
    lr=0.05,
)
RESNET = vary(FIRST, network=Small(architecture="resnet8"))


IMAGES = np.random.default_rng(0).standard_normal((5, 8, 8, 1)).astype(np.float32)


def trained(directory, recipe):
    built, member = BuiltRecipe(recipe), Member(0, directory)
    return built, train(built.job(member), built.workdir(member))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The state in which the first stage ends, in every run that begins with it."""
    return trained(tmp_path_factory.mktemp("first"), FIRST)


def then(directory, stage=BALANCED, **fields):
    return trained(directory, followed_by(FIRST, vary(stage, **fields) if fields else stage))


def backbone(state):
    return {name: leaf for name, leaf in state.params.items() if name != "classifier"}


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def differ(left, right):
    return not np.allclose(left, right, atol=1e-6)


SECOND_STAGES = {
    "crt": {"reset_classifier": True},
    "warm": {},
    "paper": {"adversary": PaperAdversary()},
    "released": {"adversary": ReleasedAdversary()},
    "sam": {"method": SAM(rho=0.05)},
    "cc_sam": {"method": CCSAM(scope="all")},
    "random": {"method": RandomPerturbation(rho=0.05)},
    "swa": {"swa_epoch": 0},
}


@pytest.mark.parametrize("name", soak_but({"crt", "cc_sam"}, SECOND_STAGES))
def test_a_stage_of_the_classifier_leaves_the_network_below_alone(tmp_path, first, name):
    _, state = then(tmp_path, **SECOND_STAGES[name])
    assert_equal(backbone(state), backbone(first[1]))
    assert differ(state.params["classifier"]["kernel"], first[1].params["classifier"]["kernel"])
    if name != "swa":  # which averages all weights
        sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
        assert max(sizes) <= state.params["classifier"]["kernel"].size


def test_a_new_classifier_owes_nothing_to_the_old_one(tmp_path, first):
    """With a learning rate of 0 the stage ends with the classifier that it began with."""
    _, fresh = then(tmp_path / "fresh", reset_classifier=True, lr=0.0, weight_decay=0.0)
    _, kept = then(tmp_path / "kept", lr=0.0, weight_decay=0.0)
    assert_equal(kept.params, first[1].params)
    kernels = [state.params["classifier"]["kernel"].ravel() for state in (fresh, first[1])]
    assert abs(np.corrcoef(*kernels)[0, 1]) < 0.2


def test_lws_trains_one_factor_a_class(tmp_path, first):
    _, state = then(tmp_path, trainable="scale", learn_scale=True)
    classifier = state.params["classifier"]
    assert_equal(backbone(state), backbone(first[1]))
    assert_equal({k: classifier[k] for k in ("kernel", "bias")}, first[1].params["classifier"])
    assert classifier["scale"].shape == (10,)
    assert differ(classifier["scale"], jnp.ones(10))


def test_the_classifier_may_learn_slower_than_its_scale(tmp_path, first):
    _, state = then(tmp_path, learn_scale=True, classifier_lr_factor=0.0)
    assert_equal(
        {name: state.params["classifier"][name] for name in ("kernel", "bias")},
        first[1].params["classifier"],
    )
    assert differ(state.params["classifier"]["scale"], jnp.ones(10))


def test_tau_normalization_takes_no_steps(tmp_path, first):
    built, state = then(tmp_path, TauNorm(tau=1.0))
    assert built.num_steps == int(first[1].step) + 1 == int(state.step)
    assert_equal(backbone(state), backbone(first[1]))
    norms = np.linalg.norm(state.params["classifier"]["kernel"], axis=0)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
    assert not state.params["classifier"]["bias"].any()


def test_nearest_class_means_classify_as_scikit_learn_does(tmp_path, first):
    built, state = then(tmp_path, NearestClassMean())
    source, split = built.source, built.split

    def features(images):
        normalized = (images / 255 - source.mean) / source.std
        model = built.stages[0].model
        return np.asarray(
            model.apply(
                {"params": first[1].params},
                jnp.asarray(normalized, jnp.float32),
                train=False,
                method="features",
            ),
            np.float64,
        )

    train_features = features(source.train.load(split.indices))
    mean = train_features.mean(0)

    def unit(x):
        return (x - mean) / np.linalg.norm(x - mean, axis=1, keepdims=True)

    nearest = NearestCentroid().fit(unit(train_features), source.train.labels[split.indices])
    test = np.arange(len(source.test.labels))
    predicted = nearest.predict(unit(features(source.test.load(test))))
    accuracy = (predicted == source.test.labels).mean()
    found = built._evaluate(state, built.stages[1])["accuracy"]
    assert found == pytest.approx(accuracy, abs=0.005)


def flops_of_a_step(stage):
    counts = (50, 20, 5)
    model = RESNET.network.build(3, (16, 16, 3))
    optimizer = stage.build_optimizer(counts)
    regime = build_regime(stage, counts, first_step=0)
    step = make_train_step(model, optimizer, stage.build_loss(counts), 3, regime=regime)
    state = jax.eval_shape(lambda: make_state_fn(model, optimizer, (16, 16, 3))(0))
    batch = jnp.zeros((16, 16, 16, 3)), jnp.zeros(16, jnp.int32)
    return jax.jit(step).lower(state, *batch).compile().cost_analysis()["flops"]


def test_a_stage_of_the_classifier_costs_a_forward_pass():
    """A third of a step on all parameters, whatever is done to the classifier."""
    whole = flops_of_a_step(Stage())
    for fields in ({}, {"adversary": PaperAdversary()}, {"method": CCSAM(scope="all")}):
        stage = Stage(trainable="classifier", **fields)
        assert flops_of_a_step(stage) / whole == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_shifted_batch_norm(batch_norm):
    """A frozen network goes on averaging its statistics, or does not."""
    stage = BALANCED.replace(batch_norm=batch_norm)
    built = BuiltRecipe(followed_by(RESNET, stage)).stages[1]
    before = built.initial_state(0)
    step = jax.jit(built.step(StepForm(0, None)))
    after, _ = step(before, IMAGES, jnp.arange(5))
    assert_equal(backbone(after), backbone(before))
    assert differ(after.params["classifier"]["kernel"], before.params["classifier"]["kernel"])
    statistics = zip(
        jax.tree.leaves(after.batch_stats), jax.tree.leaves(before.batch_stats), strict=True
    )
    assert all(differ(*pair) == (batch_norm == "batch") for pair in statistics)


def test_averaged_and_normalized_weights_are_what_a_stage_ends_with(tmp_path):
    recipe = vary(FIRST, spectral_norm="all", swa_epoch=1)
    built, state = trained(tmp_path, recipe)
    for layer in state.params.values():
        largest = np.linalg.svd(layer["kernel"], compute_uv=False)[0]
        assert largest == pytest.approx(1, abs=0.02)
    # 390 images in batches of 64: epochs 1 and 2 end with steps 13 and 19.
    assert int(optax.tree.get(state.opt_state, "num_averaged")) == 2
    # Evaluated with or without normalization, the network is the same.
    plain = built.stages[0].model.apply({"params": state.params}, IMAGES, train=False)
    np.testing.assert_allclose(built.stages[0].logits(state, IMAGES), plain, rtol=1e-3)


@pytest.mark.parametrize("trainable", ["all", "classifier"])
def test_averaging_renews_the_statistics_of_a_network_that_it_averages(tmp_path, trainable):
    stage = BALANCED.replace(trainable=trainable, epochs=1, swa_epoch=0)
    built = BuiltRecipe(followed_by(vary(RESNET, batch_size=128), stage)).stages[1]
    before = built.initial_state(0)
    after = leave(built, before)
    statistics = zip(
        jax.tree.leaves(before.batch_stats), jax.tree.leaves(after.batch_stats), strict=True
    )
    assert all(differ(*pair) == (trainable == "all") for pair in statistics)


@pytest.mark.soak
def test_averaging_renews_no_statistics_below_the_last_block_where_it_alone_is_trained():
    network = ImageNetResNet(architecture="resnet10")
    fields = {"trainable": "last_block", "batch_norm": "last_block"}
    stage = BALANCED.replace(**fields, epochs=1, swa_epoch=0)
    recipe = followed_by(vary(FIRST, network=network, batch_size=128), stage)
    built = BuiltRecipe(recipe).stages[1]
    before = built.initial_state(0)
    renewed = {
        layer: any(map(differ, jax.tree.leaves(stats), jax.tree.leaves(before.batch_stats[layer])))
        for layer, stats in leave(built, before).batch_stats.items()
    }
    assert len(renewed) == 5  # the stem and four stages of a block each
    assert renewed == {layer: layer == last_block(before.params) for layer in renewed}


def test_images_of_validation_are_none_of_the_split(tmp_path):
    profile = FIRST.data.profile.replace(max_per_class=90)
    recipe = vary(FIRST, profile=profile, validation_per_class=20, epochs=1)
    built = BuiltRecipe(recipe)
    evaluated = [batch.labels[batch.labels >= 0] for batch in built._feed.evaluated()]
    assert np.bincount(np.concatenate(evaluated)).tolist() == [20] * 10
    (_, state) = trained(tmp_path, recipe)
    assert int(state.step) == built.num_steps
    with pytest.raises(UsageError, match=r"(held_out|validation_per_class) .*500"):
        BuiltRecipe(vary(recipe, validation_per_class=500))


def test_stages_of_one_run_see_draws_of_their_own():
    built = BuiltRecipe(followed_by(FIRST, FIRST.first))
    first, second = (built.pipeline(number, seed=0).image_numbers(0, 2) for number in (0, 1))
    assert (first != second).any()
