"""Runs of one recipe on CIFAR-10/100-LT or any other source: `python -m experiments.cifar_lt`."""

from experiments import command_line
from experiments.recipe_program import train_recipe


def main() -> None:
    """Trains, or lists recipes; see `train_recipe`."""
    train_recipe(
        "cifar_lt",
        "sgd_cifar10",
        "Trains a recipe on CIFAR-10/100-LT or any other source.",
    )


if __name__ == "__main__":
    command_line.run(main)
