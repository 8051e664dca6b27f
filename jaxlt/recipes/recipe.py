"""A recipe, which decides the numbers of its runs, and an execution: how they are computed."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

import jaxlt
from jaxlt.errors import UsageError
from jaxlt.recipes.data import Data
from jaxlt.recipes.network import AnyNetwork, Encoder, Small
from jaxlt.recipes.part import Count, CountOrZero, Part, check, part_name
from jaxlt.recipes.stage import AnyStage, NearestClassMean, Stage, TauNorm

# Of `recipe.json`; the formats before were flat.
FORMAT = 2


class Evaluation(Part, frozen=True):
    """When a run is evaluated, on what, and which classes count as rare."""

    epochs: Count = 10
    """An evaluation and a checkpoint every so many epochs, and after the last."""
    images: Literal["test", "val"] = "test"
    """Images that are evaluated: the test set, or the validation set of a source that has one."""
    test_time_augmentation: CountOrZero | None = None
    """Pixels by which evaluated images exceed image_size, for the mean over five crops. LIFT has
    24, or 21 for patches of 14; the crops are corners and center. none for one look."""
    many_above: CountOrZero = 100
    """Classes with more training images are many-shot."""
    few_below: CountOrZero = 20
    """Classes with fewer are few-shot; those between the two are medium-shot."""

    def __post_init__(self):
        super().__post_init__()
        most = self.many_above + 1
        self.check("few_below", self.few_below <= most, f"at most many_above + 1, {most}")

    @property
    def shot_groups(self) -> Any:
        """The many-, medium- and few-shot classes, a `jaxlt.evaluation.ShotGroups`."""
        from jaxlt.evaluation import ShotGroups

        return ShotGroups(self.many_above, self.few_below)


class Recipe(Part, frozen=True):
    """Data, network, stages and evaluation of a run.

    >>> from jaxlt import recipes
    >>> recipe = recipes.Recipe(stages=(recipes.Stage(method=recipes.FocalSAM(rho=0.3)),))
    >>> recipe.first.method.rho
    0.3
    """

    data: Data = Data()
    """What is trained on."""
    network: AnyNetwork = Small()
    """What is trained."""
    stages: tuple[AnyStage, ...] = (Stage(),)
    """Stages, each from the state that the one before ended in."""
    evaluation: Evaluation = Evaluation()
    """When and on what the run is evaluated."""
    init_from: str | None = None
    """A run, or RUN/checkpoints/STEP, whose weights are begun with. Classes keep theirs by name. It
    is known by its contents."""

    def __post_init__(self):
        super().__post_init__()
        steps = self.stages and isinstance(self.stages[0], Stage)
        check("stages", self.stages, bool(steps), "a stage that trains, and further ones")
        early = any(isinstance(stage, NearestClassMean) for stage in self.stages[:-1])
        check("then", "ncm", not early, "train or tau_norm before the last stage")
        check("learn_scale", self.first.learn_scale, not self.first.learn_scale, "false at first")
        name = "validation" if self.data.validation else "validation_per_class"
        holds = self.evaluation.images == "test" or not self.data.holds_out
        self.check(f"data.{name}", holds, "0 unless evaluation.images is test")
        for stage, before in zip(self.stages, (None, *self.heads), strict=False):
            if isinstance(stage, Stage):
                self._check_stage(stage, before)
            elif isinstance(stage, TauNorm):
                check("network.classifier", before, before == "linear", "linear for tau_norm")
        if isinstance(self.network, Encoder):
            trainable = self.first.trainable
            check("trainable", trainable, trainable == "all", "all, see network.adaptation")

    def _check_stage(self, stage: Stage, before: str | None) -> None:
        """Checks a stage with steps against the network, of a kind of classifier before it."""
        if (scale := self.network.cosine_scale) != 1:
            holds = stage.loss.logit_scale == 1
            check("network.classifier.scale", scale, holds, "1 with a loss with a scale")
        if before is not None and stage.learn_scale:
            need = "linear or scaled_linear where a scale is learned"
            check("network.classifier", before, before in ("linear", "scaled_linear"), need)
        if before is not None and stage.adversary is not None:
            need = "linear or cosine with an adversary"
            check("network.classifier", before, before in ("linear", "cosine"), need)
        if isinstance(self.network, Encoder):
            self.network.adapted()
            holds = self.network.adaptation.kinds == ("full",) or stage.spectral_norm != "all"
            stage.check("spectral_norm", holds, "none or classifier with an adaptation")

    @property
    def first(self) -> Stage:
        """The first stage."""
        stage = self.stages[0]
        assert isinstance(stage, Stage)
        return stage

    def with_first(self, **changes: Any) -> Self:
        """Returns the recipe with fields of its first stage changed."""
        return self.replace(stages=(self.first.replace(**changes), *self.stages[1:]))

    @property
    def heads(self) -> tuple[str, ...]:
        """The kind of classifier that the network has in each stage."""
        kinds, head = [], part_name(self.network.classifier)
        for stage in self.stages:
            if isinstance(stage, Stage) and stage.learn_scale:
                head = "scaled_linear"
            if isinstance(stage, NearestClassMean):
                head = "nearest_class_mean"
            kinds.append(head)
        return tuple(kinds)

    def shortened(self, epochs: int) -> Self:
        """Returns the recipe with a first stage of so many epochs and all else in proportion."""
        factor = epochs / self.first.epochs
        stages = (one.scaled(factor) if isinstance(one, Stage) else one for one in self.stages)
        return self.replace(stages=tuple(stages))

    def identity(self) -> dict[str, Any]:
        """Returns what a run is known by, as JSON values: the recipe, and what its files hold.

        UsageError says that a file that the network begins with cannot be read.
        """
        contents, recipe = self.network.contents(), msgspec.to_builtins(self)
        if self.init_from is None:
            # Runs from before there was such a field are the same.
            del recipe["init_from"]
        else:
            from jaxlt.recipes import initial_run

            contents["init_from"] = initial_run.contents(self.network, self.init_from)
        return {"format": FORMAT, "recipe": recipe, "contents": contents}


def code_version(recipe: Recipe | None = None) -> str:
    """Returns a digest of the code that decides a run's numbers, 12 hexadecimal digits.

    It covers the package's Python and JSON files, and those of the recipe's parts of one's own.
    """
    digest = _digest_of_package().copy()
    for file in sorted(set(_own_files(recipe))):
        digest.update(file.encode() + b"\0" + Path(file).read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def _digest_of_package() -> Any:
    package, digest = Path(jaxlt.__file__).parent, hashlib.sha256()
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.json")]):
        name = str(file.relative_to(package))
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest


def _own_files(value: Any) -> Iterator[str]:
    """Yields the files of the classes of parts that are none of the package."""
    if isinstance(value, tuple):
        for inner in value:
            yield from _own_files(inner)
    elif isinstance(value, Part):
        # Typed in by hand, as in a notebook, a class has none.
        with contextlib.suppress(OSError, TypeError):
            file = inspect.getsourcefile(type(value))
            if file is not None and type(value).__module__.split(".")[0] != "jaxlt":
                yield file
        yield from _own_files(msgspec.structs.astuple(value))


PipelineKind = Literal["tf", "device"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """What changes no number of a run beyond rounding; a begun run may go on under another."""

    pipeline: PipelineKind = "tf"
    """tf: the host makes the batches, by tf.data; device: the images stay in the device's memory
    and are augmented there, in the same batches."""
    ensemble: Literal["auto", "together", "apart"] = "auto"
    """Several seeds: together in one program, where numbers differ by rounding from a run alone;
    apart; or auto, together on accelerators and, on CPU, for small_vit. As many as fit in memory
    are together."""
    measure_every: int = 100
    """Steps between two measurements of sharpness by group of classes, which go to metrics.jsonl
    and TensorBoard; 0 for none. A stage's first is after so many of its steps."""
    keep_checkpoints: int = 2
    """Latest checkpoints of a run that are kept, beside the best by balanced accuracy. What is kept
    is what experiments.landscape can draw the way of a run through."""
    shard_parameters: bool = False
    """Divide large parameters and the optimizer's state among the devices. It is so while steps are
    taken: before the first step, at a resumption and where stages meet, each
    process makes them whole."""
    skip_nonfinite: int = 0
    """Steps with a loss or update that is not finite which may be left out. At one more a run
    stops, and may go on with a larger number."""

    def __post_init__(self):
        for name, least in (("measure_every", 0), ("keep_checkpoints", 1), ("skip_nonfinite", 0)):
            if (number := getattr(self, name)) < least:
                raise UsageError(f"{name} must be at least {least}, got {number}")


DEFAULT_EXECUTION = Execution()
UNMEASURED = Execution(measure_every=0)
# Of runs that take seconds, a hundred steps are a good part and every checkpoint is small.
EXECUTION_OF_SHORT_RUNS = Execution(measure_every=20, keep_checkpoints=20)
