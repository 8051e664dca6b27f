"""CLIP's vision tower, adapted, as an image classifier."""

from typing import Any

import jax

from jaxlt.models.adaptation import UNADAPTED, Adaptation
from jaxlt.models.clip import VisionTower
from jaxlt.models.clip_config import VisionConfig
from jaxlt.models.heads import ImageClassifier


class ClipClassifier(ImageClassifier, kw_only=True):
    """A classifier on the class token's features, before their projection to the space of texts.

    The tower's parameters lie under `params["vision_model"]`, as a `Clip`'s do.

    Attributes:
        config: Sizes of the tower.
        adaptation: What is added to its blocks, its rank set.
        remat: See `VisionTower`.
    """

    config: VisionConfig
    adaptation: Adaptation = UNADAPTED
    remat: bool = False

    def setup(self):
        """Makes the tower."""
        self.vision_model = VisionTower(self.config, self.dtype, self.remat, self.adaptation)

    @property
    def suits_loops(self) -> bool:
        """True: it is made of matrix products."""
        return True

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, side, side, channels)` images to `(B, width)` float32 features."""
        del train
        return self.vision_model(images)


def with_pretrained(params: dict[str, Any], tower: dict[str, Any]) -> dict[str, Any]:
    """Puts a pretrained vision tower into the parameters of a `ClipClassifier`.

    What the adaptation adds and the head stay as they are.

    Args:
        params: Of the classifier.
        tower: `params["vision_model"]` of a `Clip`.
    """
    return {**params, "vision_model": _merged(params["vision_model"], tower)}


def _merged(params: Any, tower: Any) -> Any:
    if not isinstance(tower, dict):
        return tower
    return {
        name: _merged(leaf, tower[name]) if name in tower else leaf for name, leaf in params.items()
    }
