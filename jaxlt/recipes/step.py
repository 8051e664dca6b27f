"""The step of a stage: the one that training runs, and that programs count or time."""

from jaxlt import UsageError
from jaxlt.devices.sharding import DATA, data_mesh
from jaxlt.models import ImageClassifier
from jaxlt.recipes.network import Network
from jaxlt.recipes.stage import Stage
from jaxlt.recipes.step_forms import StepForm
from jaxlt.training import Regime, make_train_step, over_shards
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.train_step import TrainStep


def build_step(
    stage: Stage,
    model: ImageClassifier,
    class_counts: tuple[int, ...],
    regime: Regime,
    form: StepForm,
    *,
    passes_by_group: bool = True,
    skip_nonfinite: bool = False,
) -> TrainStep:
    """Builds the step of a stage, a pure function.

    Args:
        stage: the stage; its `perturbation_shards` are 1 or the number of devices.
        model: the network.
        class_counts: training images of each class.
        regime: of the stage, see `build_regime`.
        form: of the step, see `StepForms`.
        passes_by_group: see `make_train_step`.
        skip_nonfinite: see there.
    """
    axis_name = DATA if stage.perturbation_shards > 1 else None
    step = make_train_step(
        model,
        stage.build_optimizer(class_counts, phase=form.phase, axis_name=axis_name),
        stage.build_loss(class_counts),
        len(class_counts),
        capacity=form.capacity,
        passes_by_group=passes_by_group,
        regime=regime,
        skip_nonfinite=skip_nonfinite,
        axis_name=axis_name,
    )
    return step if axis_name is None else over_shards(step, data_mesh())


def check_micro_batch(network: Network, model: ImageClassifier) -> None:
    """Raises UsageError if gradients are to be accumulated where batch norm takes the batch."""
    if network.micro_batch is not None and model.couples_examples:
        raise UsageError(
            f"network.micro_batch must be none for {network.label}, whose batch norm "
            f"takes the whole batch, got {network.micro_batch}"
        )


def build_regime(
    stage: Stage,
    class_counts: tuple[int, ...],
    first_step: int = 0,
    micro_batch: int | None = None,
) -> Regime:
    """Builds what a stage does to images, parameters and features beside its loss.

    Args:
        stage: the stage.
        class_counts: training images of each class.
        first_step: step of the run at which it begins.
        micro_batch: see `Network`.
    """
    adversary, clock = stage.adversary, stage.clock(sum(class_counts))
    loss = stage.build_loss(class_counts)
    return Regime(
        first_step=first_step,
        mixup=stage.augmentation.mixup,
        row_losses=stage.row_losses,
        loss_of_features=None if adversary is None else adversary.build(loss, class_counts, clock),
        running_statistics=stage.batch_norm == "running",
        hold_statistics=stage.batch_norm == "held",
        spectral_norm=None if stage.spectral_norm == "none" else SpectralNorm(stage.spectral_norm),
        micro_batch=micro_batch,
    )
