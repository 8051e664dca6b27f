"""A run's network in a file for other programs: `python -m experiments.export RUN`."""

import dataclasses
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from experiments import command_line
from experiments.flags import POSITIONAL

if TYPE_CHECKING:
    import numpy as np

    from jaxlt.evaluation import Predictor

_logger = logging.getLogger(__name__)

_COMPARED = 8


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    run: Annotated[tuple[str, ...], POSITIONAL, "RUN"] = ()
    """A run's directory, RUN or RUN/checkpoints/STEP."""
    format: Literal["stablehlo", "safetensors", "onnx"] = "stablehlo"
    """stablehlo: a program that needs jax alone, of images of any size and number to probabilities.
    safetensors: the parameters, by name, for libraries that read this format. onnx: a program of
    images of the run's size, for ONNX's runtimes; needs the extra `export`."""
    dataset: str | None = None
    """Where the run's data are now, such as folder:DIR; none for where they were trained."""
    output: Path | None = None
    """The file; none for RUN/export/model.FORMAT."""
    checkpoint: str | None = None
    """Step of the checkpoint to take; none for the newest."""
    best: bool = False
    """Take the checkpoint of best balanced accuracy among those that are kept."""


def main() -> None:
    """Parses the flags, writes the file, and says how far its predictions are from the run's."""
    arguments = command_line.parse(
        Arguments,
        "experiments.export",
        "Writes a run's network to a file that other programs read, once its predictions are found "
        "to be the run's own.",
    )
    from experiments.served_run import only_run, served
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.evaluation import export
    from jaxlt.files.directory import claim_directory

    run, step = only_run(arguments.run, arguments.checkpoint)
    enable_compilation_cache()
    found = served(run, step, best=arguments.best)
    predictor = found.predictor()
    images = _images(found.path, predictor, arguments.dataset)
    path = arguments.output
    if path is None:
        path = found.path / "export" / f"model.{arguments.format}"
        claim_directory(path.parent)
    write = getattr(export, f"export_{arguments.format}")
    check = write(predictor, path, images)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(
        f"largest difference of a probability from the run's own: {check.probability:.1e}, "
        f"over {check.images} images"
    )
    if arguments.format == "stablehlo":
        print(
            f"largest difference of a pixel from Pillow's, after resizing: {check.pixel:.0f} of 255"
        )
    shown = shlex.quote(str(found.path))
    command_line.say_next(
        f"python3 -m experiments.predict {shown} IMAGE...",
        f"python3 -m experiments.evaluate {shown} --dataset SOURCE",
    )


def _images(run: Path, predictor: "Predictor", dataset: str | None) -> Sequence["np.ndarray"]:
    """Returns images of two sizes to compare predictions on: evaluated ones, else random ones."""
    import numpy as np

    from jaxlt.errors import UsageError
    from jaxlt.recipes.recorded import TrainedRun

    height, width, channels = predictor.image_shape
    try:
        evaluated, indices = TrainedRun(run, dataset=dataset).evaluated
        places = np.linspace(0, len(indices) - 1, _COMPARED, dtype=np.int64)
        images = evaluated.load(indices[np.unique(places)])
    except UsageError as error:
        if dataset is not None:
            raise
        _logger.warning("compared on random pixels, the run's images are not there: %s", error)
        shape = (_COMPARED, height, width, channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # One more, to be resized.
    return [*images, np.repeat(images[0], 2, axis=0)[: 2 * height - 1]]


if __name__ == "__main__":
    command_line.run(main)
