"""What of data, network and stages go together, and the file of a recipe."""

import pytest

from jaxlt import UsageError
from jaxlt.recipes.data import Exponential
from jaxlt.recipes.losses import LDAM, PaperAdversary
from jaxlt.recipes.methods import SAM
from jaxlt.recipes.named import RECIPES, followed_by, vary
from jaxlt.recipes.network import Adaptation, CosineLayer, RandomEncoder, Small
from jaxlt.recipes.optimizer import MultiStep, Optimizer
from jaxlt.recipes.policies import RandAugment
from jaxlt.recipes.recipe import Evaluation, Recipe
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm

LWS = Stage(learn_scale=True)
ADVERSARY = Stage(trainable="classifier", adversary=PaperAdversary())
PARTLY = RandomEncoder(adaptation=Adaptation(kinds=("lora",)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Recipe(stages=(NearestClassMean(),)),
            "stages must be a stage that trains, and further ones, got ncm",
        ),
        (lambda: Recipe(stages=()), "stages must be a stage that trains, .*"),
        (
            lambda: vary(Recipe(), validation_per_class=-1),
            "validation_per_class must be an integer of at least 0, got -1",
        ),
        (
            lambda: vary(
                Recipe(),
                validation_per_class=1,
                evaluation=Recipe().evaluation.replace(images="val"),
            ),
            "data.validation_per_class must be 0 unless evaluation.images is test, got 1",
        ),
        (
            lambda: vary(
                Recipe(), validation=0.5, evaluation=Recipe().evaluation.replace(images="val")
            ),
            "data.validation must be 0 unless evaluation.images is test, got 0.5",
        ),
        (
            lambda: Recipe(network=Small(classifier=CosineLayer()), stages=(Stage(), LWS)),
            "network.classifier must be linear or scaled_linear where a scale is learned, got .*",
        ),
        (
            lambda: vary(Recipe(), learn_scale=True),
            "learn_scale must be false at first, got true",
        ),
        (
            lambda: followed_by(Recipe(), LWS, TauNorm()),
            "network.classifier must be linear for tau_norm, got scaled_linear",
        ),
        (
            lambda: followed_by(Recipe(), LWS, ADVERSARY),
            "network.classifier must be linear or cosine with an adversary, got scaled_linear",
        ),
        (
            lambda: followed_by(Recipe(), NearestClassMean(), Stage(trainable="classifier")),
            "then must be train or tau_norm before the last stage, got ncm",
        ),
        (
            lambda: vary(Recipe(network=Small(classifier=CosineLayer(scale=25.0))), loss=LDAM()),
            "network.classifier.scale must be 1 with a loss with a scale, got 25.0",
        ),
        (
            lambda: vary(Recipe(network=RandomEncoder()), trainable="classifier"),
            "trainable must be all, see network.adaptation, got classifier",
        ),
        (
            lambda: followed_by(Recipe(network=PARTLY), Stage(spectral_norm="all")),
            "spectral_norm must be none or classifier with an adaptation, got all",
        ),
        (
            lambda: MultiStep(after=(0.5,), factors=(0.1, 0.2)),
            "factors must be as many numbers as after has, 1, got 0.1 0.2",
        ),
        (
            lambda: Exponential(imbalance_factor=0.5),
            "imbalance_factor must be at least 1, got 0.5",
        ),
        (lambda: RandAugment(magnitude=99), "magnitude must be in 0..30, got 99"),
        (lambda: Optimizer(momentum=2.0), r"momentum must be in \[0, 1\), got 2.0"),
        (
            lambda: Evaluation(many_above=10, few_below=20),
            r"few_below must be at most many_above \+ 1, 11, got 20",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, words):
    with pytest.raises(UsageError, match=f"^{words}$") as caught:
        make()
    assert "\n" not in str(caught.value)


def trained(recipe):
    """The stages of a recipe, each of which must train."""
    stages = [stage for stage in recipe.stages if isinstance(stage, Stage)]
    assert len(stages) == len(recipe.stages)
    return stages


def test_a_shortened_recipe_keeps_its_proportions():
    recipe = RECIPES["cc_sam_cifar10"].shortened(20)
    assert [stage.epochs for stage in trained(recipe)] == [20, 3]
    assert recipe.identity()["recipe"]["stages"][1]["epochs"] == 3
    assert RECIPES["ldam_drw_cifar10"].shortened(10).first.reweighting.epoch == 8
    swa = trained(RECIPES["swa_1_2_mislas_cifar100"].shortened(20))
    assert [stage.swa_epoch for stage in swa] == [15, 0]
    steps = RECIPES["sam_rho_steps_cifar10"]
    twenty, two = (steps.shortened(epochs).first.method for epochs in (20, 2))
    assert isinstance(twenty, SAM)
    assert isinstance(two, SAM)
    assert twenty.rho_epochs == (0, 16, 18)
    assert len(set(two.rho_epochs)) == 3
