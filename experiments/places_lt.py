"""Runs of one recipe on Places-LT: `python -m experiments.places_lt`."""

from experiments import command_line
from experiments.recipe_program import train_recipe


def main() -> None:
    """Trains, or lists recipes; see `train_recipe`."""
    train_recipe(
        "places_lt",
        "cc_sam_places_lt",
        "Trains a recipe on Places-LT, from weights of ImageNet (--network.weights).",
    )


if __name__ == "__main__":
    command_line.run(main)
