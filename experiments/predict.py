"""Classes of image files by a finished run: `python -m experiments.predict --checkpoint DIR`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments import command_line
from experiments.flag_words import POSITIONAL
from jaxlt.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    images: Annotated[tuple[Path, ...], POSITIONAL]
    """Image files, of any format that Pillow reads."""
    checkpoint: Path
    """Directory of a finished run, the one that was its workdir."""
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
    if not arguments.images:
        raise UsageError("images must name at least one file, got none")
    from jaxlt.devices.compilation_cache import enable_compilation_cache
    from jaxlt.evaluation import Predictor

    enable_compilation_cache()
    predictor = Predictor.load(arguments.checkpoint)
    found = predictor.top_k(arguments.images, arguments.top_k)
    for path, predictions in zip(arguments.images, found, strict=True):
        print(path)
        for class_name, probability in predictions:
            print(f"{100 * probability:7.2f} %  {class_name}")


if __name__ == "__main__":
    command_line.run(main)
