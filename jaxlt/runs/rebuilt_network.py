"""The network of a run, built anew from its description."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.errors import UsageError
from jaxlt.models import ImageClassifier, create_model
from jaxlt.runs.model_description import ModelDescription


def build_network(description: ModelDescription) -> ImageClassifier:
    """Builds the network."""
    return create_model(
        description.model,
        description.num_classes,
        classifier=description.classifier,
        dtype=jnp.dtype(description.precision),
        image_shape=description.image_shape,
        cosine_scale=description.cosine_scale,
        adaptation=description.adaptation,
    )


def variable_shapes(description: ModelDescription) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the shapes of the variables that were trained, and of the frozen parameters."""
    network, key = build_network(description), jax.random.key(0)
    images = jax.ShapeDtypeStruct((1, *description.image_shape), jnp.float32)
    init = jax.eval_shape(lambda key, images: network.init(key, images, train=False), key, images)
    trained, frozen = network.split(init["params"])
    return {"params": trained, "batch_stats": init.get("batch_stats", {})}, frozen


def frozen_parameters(description: ModelDescription) -> dict[str, Any]:
    """Returns those of the pretrained network that was adapted; UsageError unless it is there."""
    if description.pretrained is None:
        return {}
    from jaxlt.models.clip.image_encoders import encoder_digest, load_encoder

    model = description.model
    if (found := encoder_digest(model)) != description.pretrained:
        raise UsageError(
            f"model {model} must be the one that the run was trained on, of "
            f"{description.pretrained}, its files are of {found}"
        )
    _, shapes = variable_shapes(description)
    if not shapes:
        return {}
    encoder = flatten_dict({"vision_model": load_encoder(model, description.image_shape).params})
    return unflatten_dict({path: encoder[path] for path in flatten_dict(shapes)})
