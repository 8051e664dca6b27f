"""Which losses of finished runs an analysis examines, as flags that its programs share."""

import dataclasses
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Examined:
    """Networks, images and loss. Images are not augmented, batch norm has running statistics."""

    checkpoint: tuple[Path, ...]
    """Directories of finished runs, those that were their workdirs; or checkpoints of theirs,
    RUN/checkpoints/STEP."""
    images: Literal["train", "test"] = "train"
    """train: the training images of each run's split. test: its test images."""
    images_per_class: int | None = None
    """Take only the first so many images of each class; None takes all."""
    loss: Literal["cross_entropy", "own"] = "cross_entropy"
    """cross_entropy: the same for all runs, of the logits times the scale that the training loss
    gave them (ldam, gcl). own: the loss that the last stage of each run was trained by."""
    output: Path | None = None
    """Directory of the numbers and pictures; None for RUN/NAME with NAME the program's, or for NAME
    in the directory that several runs have in common."""

    def described(self) -> dict[str, Any]:
        """Returns all flags of the program but where it writes, as JSON values."""
        fields = dataclasses.asdict(self)
        del fields["output"]
        return {**fields, "checkpoint": [str(path) for path in self.checkpoint]}
