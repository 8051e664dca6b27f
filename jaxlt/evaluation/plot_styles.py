"""Colours and markers of the lines of a picture."""

import itertools
from collections.abc import Iterator

# Okabe and Ito's colours, told apart by colour-blind readers; markers serve print without colour.
COLOURS = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#0072B2",
    "#999999",
)
MARKERS = "osD^vPX*"


def run_styles() -> Iterator[dict[str, str]]:
    """Yields a colour and a marker for each run, the same again after the eighth."""
    for colour, marker in itertools.cycle(zip(COLOURS, MARKERS, strict=True)):
        yield {"color": colour, "marker": marker}
