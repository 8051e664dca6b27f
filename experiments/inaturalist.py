"""Runs of one recipe on iNaturalist 2018: `python -m experiments.inaturalist`."""

from experiments import command_line
from experiments.recipe_program import train_recipe


def main() -> None:
    """Trains, or lists recipes; see `train_recipe`."""
    train_recipe("inaturalist", "focal_sam_inaturalist", "Trains a recipe on iNaturalist 2018.")


if __name__ == "__main__":
    command_line.run(main)
