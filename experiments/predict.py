"""Classes of image files by a run: `python -m experiments.predict RUN PATH...`."""

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

    images: Annotated[tuple[str, ...], POSITIONAL, "RUN IMAGE..."] = ()
    """A run's directory, RUN or RUN/checkpoints/STEP, then the images: files, directories, which
    are searched with all that is below them, and patterns such as 'photos/*.jpg' in quotation
    marks."""
    checkpoint: str | None = None
    """Step of the checkpoint to take; none for the newest. Or the run itself, before IMAGE..."""
    best: bool = False
    """Take the checkpoint of best balanced accuracy among those that are kept."""
    top_k: int | None = None
    """How many classes to name for each image, the likeliest first; none for 5, or for all where
    there are fewer."""
    csv: str | None = None
    """File with a line an image: its path, then the likeliest classes and their probabilities, in
    place of the lines on the screen; - writes it there."""
    jsonl: str | None = None
    """The same as JSON, one object a line."""
    skip_unreadable: bool = False
    """Name images that cannot be read, and leave them out; without it they stop the program before
    it writes anything."""


def main() -> None:
    """Parses the flags and prints or writes the likeliest classes of each image."""
    arguments = command_line.parse(
        Arguments,
        "experiments.predict",
        "Finds the likeliest classes of image files, with their probabilities, as a run's network "
        "sees them; the run may still be training.",
    )
    from experiments.served_run import named, served

    run, step, images = named(arguments.images, arguments.checkpoint)
    if not images:
        raise UsageError(
            "IMAGE must be an image file, a directory or several, got none; give them after the "
            f"run, python3 -m experiments.predict {shlex.quote(str(run))} IMAGE..."
        )
    from experiments.image_paths import check_is_no_image, find_images
    from experiments.predictions import STANDARD_OUTPUT, Predictions
    from jaxlt.devices.backends import enable_compilation_cache
    from jaxlt.files.directory import expanded
    from jaxlt.files.whole_file import check_can_be_written

    given = {"csv": arguments.csv, "jsonl": arguments.jsonl}
    targets = {
        name: word if word == STANDARD_OUTPUT else expanded(word).resolve()
        for name, word in given.items()
        if word is not None
    }
    if len(set(targets.values())) < len(targets):
        raise UsageError(f"csv and jsonl must be different files, got {arguments.csv} twice")
    files = {name: one for name, one in targets.items() if isinstance(one, Path)}
    for name, file in files.items():
        check_can_be_written(file, name)
        check_is_no_image(file, name)
    enable_compilation_cache()
    found = served(run, step, best=arguments.best)
    predictor = found.predictor()
    with Predictions(predictor, predictor.num_named(arguments.top_k)) as predictions:
        paths = find_images(images)
        for name, file in files.items():
            check_is_no_image(file, name, paths)
        predictions.add(paths, skip_unreadable=arguments.skip_unreadable)
        if arguments.csv is None and arguments.jsonl is None:
            predictions.print()
        if arguments.csv is not None:
            predictions.write_csv(arguments.csv)
        if arguments.jsonl is not None:
            predictions.write_jsonl(arguments.jsonl)
    shown = shlex.quote(str(found.path))
    command_line.say_next(
        f"python3 -m experiments.evaluate {shown} --dataset SOURCE",
        f"python3 -m experiments.export {shown}",
    )


if __name__ == "__main__":
    command_line.run(main)
