"""Classes of image files by a finished run: `python -m experiments.predict --checkpoint RUN`."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

from experiments import command_line
from experiments.flags import POSITIONAL
from jaxlt.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    images: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Image files, at least one, of any format that Pillow reads."""
    checkpoint: Path | None = None
    """Must be given: a finished run, by the directory that was its workdir or by one of its
    checkpoints, RUN/checkpoints/STEP."""
    top_k: int = 5
    """How many classes to print for each image, the likeliest first."""


def main() -> None:
    """Parses the flags and prints the likeliest classes of each image."""
    arguments = command_line.parse(
        Arguments,
        "experiments.predict",
        "Prints the likeliest classes of image files, with their probabilities, as a finished "
        "run's network sees them.",
    )
    if arguments.checkpoint is None:
        raise UsageError(
            "--checkpoint must be a finished run, got nothing; give its directory, --checkpoint RUN"
        )
    if not arguments.images:
        raise UsageError(
            "IMAGE must be one image file or several, got none; give them after the flags, "
            f"--checkpoint {arguments.checkpoint} IMAGE..."
        )
    from experiments.loaded_runs import directory_and_step
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.evaluation import Predictor

    enable_compilation_cache()
    run, step = directory_and_step(arguments.checkpoint)
    found = Predictor.load(run, step).top_k(arguments.images, arguments.top_k)
    for path, predictions in zip(arguments.images, found, strict=True):
        print(path)
        for class_name, probability in predictions:
            print(f"{100 * probability:7.2f} %  {class_name}")
    command_line.say_next(f"python3 -m experiments.report {shlex.quote(str(run))}")


if __name__ == "__main__":
    command_line.run(main)
