"""What a run begins with and does not draw: a file of weights, or a pretrained encoder and head."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt import UsageError
from jaxlt.data import Source
from jaxlt.files.directory import expanded
from jaxlt.models import create_model
from jaxlt.models.adaptation.modules import UNADAPTED
from jaxlt.models.clip import prompts
from jaxlt.models.clip.head_init import class_mean_kernel, classifier_params, text_kernel
from jaxlt.models.clip.image_encoders import PretrainedEncoder, load_encoder
from jaxlt.models.clip.model import ClipModel
from jaxlt.models.clip.snapshot import ClipSnapshot, weights_of
from jaxlt.models.weights.pretrained import load_initial_weights
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.network.encoders import ENSEMBLE, Encoder
from jaxlt.recipes.network.network import Backbone
from jaxlt.recipes.parameters import last_block
from jaxlt.recipes.part import part_name
from jaxlt.recipes.stage_ends import training_features

_TEXT_BATCH = 128


def of_encoder(network: Encoder, source: Source, feed: InputPipelines) -> dict[str, Any]:
    """Returns the variables of a pretrained encoder, and of its classifier where it is not drawn.

    UsageError says that files are missing or do not fit, or that classes have no names in words.
    """
    encoder = load_encoder(network.label, source.image_shape)
    params = {"vision_model": encoder.params}
    if network.classifier_init != "random":
        if network.classifier_init == "text":
            kernel = _text_kernel(network, source, encoder.snapshot)
        else:
            kernel = _class_mean_kernel(network, source, feed, encoder)
        head: Any = part_name(network.classifier)
        params["classifier"] = classifier_params(kernel, head)
    return {"params": params}


def of_file(
    network: Backbone, weights: str, num_classes: int, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns the variables in a file of weights; UsageError if it is missing or does not fit."""
    model = network.build(num_classes, image_shape)
    image = jnp.zeros((1, *image_shape))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    path = expanded(weights)
    path = weights_of(path) if path.is_dir() else path
    drawn = () if network.last_block_weights else (last_block(shapes["params"]),)
    return load_initial_weights(path, shapes, drawn=drawn)


def _class_mean_kernel(
    network: Encoder, source: Source, feed: InputPipelines, encoder: PretrainedEncoder
) -> np.ndarray:
    model = create_model(
        network.label,
        source.num_classes,
        dtype=jnp.dtype(network.precision),
        image_shape=source.image_shape,
        adaptation=UNADAPTED,
    )
    features, labels = training_features(feed, model, {"params": {"vision_model": encoder.params}})
    return class_mean_kernel(features, labels, source.num_classes)


def _text_kernel(network: Encoder, source: Source, snapshot: ClipSnapshot | None) -> np.ndarray:
    if snapshot is None:
        raise UsageError(
            f"network must be clip:SNAPSHOT for classifier_init text, got {network.label}"
        )
    if "text_model" not in snapshot.params:
        raise UsageError(
            f"network.snapshot must have a text encoder for classifier_init text, got "
            f"{network.label} with an image encoder alone; give --network.classifier-init "
            "class_mean"
        )
    names = prompts.names_in_words(source.class_names, network.class_names)
    templates = prompts.IMAGENET_TEMPLATES if network.prompt == ENSEMBLE else (network.prompt,)
    texts = [text for template in templates for text in prompts.class_prompts(names, template)]
    features = _text_features(snapshot, texts).reshape(len(templates), len(names), -1)
    return text_kernel(features.swapaxes(0, 1), snapshot.params["visual_projection"]["kernel"])


def _text_features(snapshot: ClipSnapshot, texts: list[str]) -> np.ndarray:
    tokens = prompts.PromptTokenizer(snapshot.directory, snapshot.config.text)(texts)
    embed = jax.jit(functools.partial(ClipModel(snapshot.config).apply, method="text_embeddings"))
    params = {"params": snapshot.params}
    # Batches of one size, so that one program serves them all.
    size = min(len(tokens), _TEXT_BATCH)
    padded = np.pad(tokens, ((0, -len(tokens) % size), (0, 0)), mode="edge")
    batches = [
        np.asarray(embed(params, padded[start : start + size]))
        for start in range(0, len(padded), size)
    ]
    return np.concatenate(batches)[: len(tokens)]
