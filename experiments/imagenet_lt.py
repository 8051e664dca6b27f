"""Runs of one recipe on ImageNet-LT: `python -m experiments.imagenet_lt`."""

from experiments import command_line
from experiments.recipe_program import train_recipe


def main() -> None:
    """Trains, or lists recipes; see `train_recipe`."""
    train_recipe("imagenet_lt", "focal_sam_imagenet_lt", "Trains a recipe on ImageNet-LT.")


if __name__ == "__main__":
    command_line.run(main)
