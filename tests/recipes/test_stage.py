"""What a stage builds of its parts, and what of them go together."""

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxlt
from jaxlt import UsageError
from jaxlt.recipes.built_stage import build_regime
from jaxlt.recipes.losses import ClassBalanced, LabelAwareSmoothing, PaperAdversary
from jaxlt.recipes.methods import SAM, SSESAM
from jaxlt.recipes.named import vary
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm
from jaxlt.training import Moment


def test_radius_changes_at_the_first_step_of_its_epochs():
    stage = vary(
        Stage(method=SAM(rho=0.05, rho_epochs=(2, 4), rho_values=(0.1, 0.5)), batch_size=7),
        momentum=0,
    )
    counts = (10, 5)
    optimizer = optax.with_extra_args_support(stage.build_optimizer(counts))
    params = jnp.ones(3)
    state = optimizer.init(params)

    def class_losses_fn(params):
        return jaxlt.class_losses(params[:2] ** 2, jnp.arange(2), 2)

    radii = []
    for _ in range(stage.num_steps(sum(counts), 5)):
        gradient = jax.grad(lambda p: class_losses_fn(p).mean())(params)
        _, state = optimizer.update(gradient, state, params, class_losses_fn=class_losses_fn)
        radii.append(round(float(optax.tree.get(state, "perturbation_norm")[0]), 6))
    # 15 images in batches of 7: epoch 2 begins with step 5, epoch 4 with step 9.
    assert radii == [0.05] * 5 + [0.1] * 4 + [0.5] * 2


def moment(step):
    return Moment(jnp.array(step), jax.random.key(0))


def test_deferred_weights_start_with_their_epoch():
    stage = Stage(reweighting=ClassBalanced(epoch=3), batch_size=10)
    loss = stage.build_loss((90, 10))
    logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
    plain, weighted = loss(logits, labels, moment(29)), loss(logits, labels, moment(30))
    assert plain[0] == plain[1]
    assert weighted[1] > 8 * weighted[0]


def test_reweighted_losses_are_divided_by_the_batch_or_by_its_weights():
    counts, labels = (90, 10), jnp.array([0, 0, 0, 1])
    logits = jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [0.5, -0.5]])
    plain = jaxlt.losses.cross_entropy(logits, labels)
    weights = jaxlt.losses.class_balanced_weights(counts)[labels]
    stages = {
        mean: Stage(reweighting=ClassBalanced(epoch=0, mean=mean)) for mean in ("batch", "weights")
    }
    means = {
        mean: float(stage.build_loss(counts)(logits, labels, moment(0)).mean())
        for mean, stage in stages.items()
    }
    total = float((weights * plain).sum())
    assert means["batch"] == pytest.approx(total / 4)
    assert means["weights"] == pytest.approx(total / float(weights.sum()))
    assert not build_regime(stages["weights"], counts).row_losses


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stage(epochs=0), "epochs must be an integer of at least 1, got 0"),
        (lambda: Stage(batch_size=0), "batch_size must be an integer of at least 1, got 0"),
        (lambda: Optimizer(lr=-1.0), "lr must be at least 0, got -1.0"),
        (lambda: SSESAM(switch_at=1.5), "switch_at must be between 0 and 1, got 1.5"),
        (lambda: TauNorm(tau=-1.0), "tau must be at least 0, got -1.0"),
        (lambda: LabelAwareSmoothing(head=1.5), "head must be between 0 and 1, got 1.5"),
        (lambda: ClassBalanced(beta=1.0), r"beta must be in \[0, 1\), got 1.0"),
        (
            lambda: Stage(batch_size=10, perturbation_shards=4),
            "perturbation_shards must be a divisor of batch_size 10, got 4",
        ),
        (
            lambda: Stage(adversary=PaperAdversary()),
            "trainable must be classifier with an adversary, got all",
        ),
        (
            lambda: vary(Stage(adversary=PaperAdversary(), trainable="classifier"), mixup=1.0),
            "augmentation.mixup must be 0 with an adversary, got 1.0",
        ),
        (
            lambda: Stage(adversary=PaperAdversary(), trainable="classifier", learn_scale=True),
            "learn_scale must be false with an adversary, got true",
        ),
        (
            lambda: Stage(trainable="scale"),
            "learn_scale must be true where the scale is trained, got false",
        ),
        (
            lambda: Stage(trainable="last_block"),
            "batch_norm must be last_block or running to train last_block, got batch",
        ),
        (
            lambda: Stage(trainable="classifier", batch_norm="held"),
            "trainable must be all where batch_norm is held, got classifier",
        ),
        (lambda: Stage(swa_epoch=200), r"swa_epoch must be in 0\.\.199, got 200"),
        (
            lambda: SAM(rho_epochs=(5, 2), rho_values=(1.0, 2.0)),
            "rho_epochs must be ascending, from 0 on, got 5 2",
        ),
        (
            lambda: SAM(rho_epochs=(3,), rho_values=(0.1, 0.2)),
            "rho_values must be one radius for each of the 1 rho_epochs, got 0.1 0.2",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, words):
    with pytest.raises(UsageError, match=f"^{words}$") as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [TauNorm, NearestClassMean])
def test_a_stage_without_steps_has_nothing_of_training(kind):
    for field, value in (("spectral_norm", "all"), ("swa_epoch", 0), ("epochs", 1)):
        with pytest.raises(TypeError, match=field):
            kind(**{field: value})
