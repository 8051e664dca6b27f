"""What the programs that examine losses of finished runs share: flags, runs, where they write."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from experiments.analyzed_run import AnalyzedRun, Scope


@dataclasses.dataclass(frozen=True)
class Examined:
    """Networks, images and loss. Images are not augmented, batch norm has running statistics."""

    program: ClassVar[str]

    checkpoint: tuple[Path, ...]
    """Directories of finished runs, those that were their workdirs; or checkpoints of theirs,
    RUN/checkpoints/STEP."""
    dataset: str | None = None
    """Where the runs' data are now, such as folder:DIR; none for where they were trained."""
    images: Literal["train", "test"] = "train"
    """train: the training images of each run's split. test: its test images."""
    images_per_class: int | None = None
    """Take only the first so many images of each class; none takes all."""
    loss: Literal["cross_entropy", "own"] = "cross_entropy"
    """cross_entropy: the same for all runs, of the logits times the scale that the training loss
    gave them (ldam, gcl). own: the loss that the last stage of each run was trained by."""
    output: Path | None = None
    """Directory of the numbers and pictures; none for RUN/NAME with NAME the program's, or for NAME
    in the directory that several runs have in common."""

    def load(self, scope: "Scope" = "all") -> tuple[Path, list["AnalyzedRun"]]:
        """Returns the directory to write to, which is not made yet, and the runs."""
        from experiments.analyzed_run import AnalyzedRun, check_same
        from experiments.loaded_runs import common_destination, load_runs
        from jaxlt.devices.backends import enable_compilation_cache

        enable_compilation_cache()
        runs = load_runs(self.checkpoint, self.dataset)
        place = common_destination(runs, self.output, self.program)
        analyzed = [AnalyzedRun(run, self, scope) for run in runs]
        check_same(analyzed, [tuple(one.groups) for one in analyzed], "groups of classes")
        return place, analyzed

    def write(self, place: Path, values: Mapping[str, Any]) -> None:
        """Makes the directory, with the file of the flags and the values."""
        from experiments.loaded_runs import write_values
        from jaxlt.files.directory import claim_directory

        flags = dataclasses.asdict(self)
        del flags["output"]
        flags["checkpoint"] = [str(path) for path in self.checkpoint]
        claim_directory(place)
        write_values(place / f"{self.program}.json", {**flags, **values})
