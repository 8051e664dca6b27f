"""How a pretrained vision transformer is adapted: what is added to it and what of it trains."""

import dataclasses
import math
from typing import Literal, TypeAlias, get_args

from jaxlt.errors import UsageError

Added: TypeAlias = Literal["adaptformer", "adapter", "lora", "vpt_shallow", "vpt_deep", "ssf"]
Kind: TypeAlias = Literal[Added, "bias", "layer_norm", "partial", "full", "linear_probe"]
Projection: TypeAlias = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]

_OF_RANK = ("adaptformer", "adapter", "lora")
_ALONE = ("full", "linear_probe")


def bottleneck_rank(num_classes: int, num_blocks: int) -> int:
    """Returns LIFT's rank of bottlenecks, `2**max(0, trunc(log2(K / (2 L))))`, for K and L.

    The modules of all blocks then have about as many parameters as a linear classifier, or fewer
    (Shi et al., "Long-tail learning with foundation model: heavy fine-tuning hurts", ICML 2024).
    """
    return 2 ** max(0, int(math.log2(num_classes / (2 * num_blocks))))


@dataclasses.dataclass(frozen=True)
class EncoderAdaptation:
    """What is added to a pretrained vision transformer and which of its own parameters train.

    The classifier trains with every kind. Kinds can be combined, except "full" and "linear_probe",
    which stand alone, and the two of VPT.

    Attributes:
        kinds: at least one of
            "adaptformer": a bottleneck beside each block's MLP (Chen et al., NeurIPS 2022);
            "adapter": a bottleneck after each block's MLP (Houlsby et al., ICML 2019);
            "lora": a low-rank product beside projections of each block (Hu et al., ICLR 2022);
            "vpt_shallow", "vpt_deep": learned tokens before the first block, or new ones before
            each (Jia et al., ECCV 2022);
            "ssf": a scale and a shift after each operation of a block (Lian et al., NeurIPS 2022);
            "bias": the biases in the blocks (BitFit; Ben Zaken et al., ACL 2022);
            "layer_norm": the layer norms in the blocks;
            "partial": all of the last blocks; of all blocks it is what LIFT calls full;
            "full": all parameters, and "linear_probe": the classifier alone.
        rank: of the bottlenecks of AdaptFormer, adapter and LoRA; None for `bottleneck_rank`.
        lora_projections: the dense layers of a block that LoRA changes.
        prompt_length: learned tokens of VPT, in each block that has them.
        last_blocks: blocks that "partial" trains.

    Raises:
        UsageError: a field is not what it must be, or kinds do not go together.
    """

    kinds: tuple[Kind, ...] = ("adaptformer",)
    rank: int | None = None
    lora_projections: tuple[Projection, ...] = ("q_proj", "v_proj")
    prompt_length: int = 10
    last_blocks: int = 1

    def __post_init__(self):
        for name, known in (("kinds", get_args(Kind)), ("lora_projections", get_args(Projection))):
            chosen = getattr(self, name)
            holds = 0 < len(set(chosen) & set(known)) == len(chosen)
            self._check(name, holds, f"some of {', '.join(known)}, each at most once")
        for kind in _ALONE:
            self._check("kinds", kind not in self or len(self.kinds) == 1, f"{kind} alone")
        both = "vpt_shallow" in self and "vpt_deep" in self
        self._check("kinds", not both, "with vpt_shallow or vpt_deep, not both")
        needed = self.rank is None or self._has_rank
        self._check("rank", needed, f"None without one of {', '.join(_OF_RANK)}")
        for name in ("rank", "prompt_length", "last_blocks"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1")

    def _check(self, name: str, holds: bool, need: str) -> None:
        if not holds:
            shown = {"kinds": "adaptation", "rank": "adaptation_rank"}.get(name, name)
            raise UsageError(f"{shown} must be {need}, got {getattr(self, name)}")

    def __contains__(self, kind: Kind) -> bool:
        return kind in self.kinds

    @property
    def _has_rank(self) -> bool:
        return any(kind in self for kind in _OF_RANK)

    def with_rank(self, num_classes: int, num_blocks: int) -> "EncoderAdaptation":
        """Returns the adaptation with its rank by `bottleneck_rank` where it needs and has none."""
        if self.rank is None and self._has_rank:
            return dataclasses.replace(self, rank=bottleneck_rank(num_classes, num_blocks))
        return self

    @property
    def set_rank(self) -> int:
        """The rank, which must have been set."""
        if self.rank is None:
            raise ValueError("rank must be set, got None: call with_rank first")
        return self.rank
