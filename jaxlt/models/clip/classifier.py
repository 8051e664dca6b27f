"""CLIP's vision tower, adapted, as an image classifier."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import UNADAPTED, Adaptation
from jaxlt.models.adaptation.trainable import split, trainable
from jaxlt.models.clip.config import VisionConfig
from jaxlt.models.clip.model import VisionTower
from jaxlt.models.networks.heads import ImageClassifier


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
        """Maps `(B, side, side, channels)` images to `(B, width)` float32 features.

        Grey images, of one channel, are shown to the tower in each of its channels.
        """
        del train
        if images.shape[-1] == 1:
            images = jnp.repeat(images, self.config.num_channels, axis=-1)
        return self.vision_model(images)

    def split(self, params: Any) -> tuple[Any, Any]:
        """Returns what the adaptation trains and what it leaves frozen."""
        return split(params, trainable(self.adaptation, params))
