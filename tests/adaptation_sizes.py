"""Formulas of the sizes of what an adaptation adds, with D the width of a token."""

from typing import get_args

from jaxlt.models.adaptation.kinds import Projection


def added_parameters(adaptation, *, width: int, hidden: int, num_blocks: int):
    """How many parameters each kind adds to a network, counted by hand."""
    inputs = dict.fromkeys(get_args(Projection), width) | {"fc2": hidden}
    outputs = dict.fromkeys(get_args(Projection), width) | {"fc1": hidden}

    def bottleneck():
        norm, down, up = (
            2 * width,
            (width + 1) * adaptation.set_rank,
            (adaptation.set_rank + 1) * width,
        )
        return norm + down + up

    of_kind = {
        "adaptformer": lambda: num_blocks * (bottleneck() + 1),
        "adapter": lambda: num_blocks * bottleneck(),
        "lora": lambda: (
            num_blocks
            * sum(
                adaptation.set_rank * (inputs[name] + outputs[name])
                for name in adaptation.lora_projections
            )
        ),
        "vpt_shallow": lambda: adaptation.prompt_length * width,
        "vpt_deep": lambda: num_blocks * adaptation.prompt_length * width,
        # After both layer norms as well.
        "ssf": lambda: num_blocks * 2 * (sum(outputs.values()) + 2 * width),
    }
    return {kind: of_kind[kind]() for kind in adaptation.kinds if kind in of_kind}
