"""Fine-tuning of CLIP on long-tailed data: `python -m experiments.clip_lt`."""

from experiments import command_line
from experiments.recipe_program import train_recipe


def main() -> None:
    """Trains, or lists recipes; see `train_recipe`."""
    train_recipe(
        "clip_lt",
        "focal_sam_clip_cifar100",
        "Fine-tunes CLIP's image encoder, in full or by a few parameters, on "
        "long-tailed images of any source.",
    )


if __name__ == "__main__":
    command_line.run(main)
