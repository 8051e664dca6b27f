"""What a run begins with and does not draw: a file of weights, or a pretrained tower and head."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import build_model
from experiments.feed import Feed
from experiments.parameters import last_block
from experiments.recipe import ENSEMBLE, Recipe
from jaxlt import UsageError
from jaxlt.data import Source
from jaxlt.data.sources.class_names import names_in_words
from jaxlt.models import create_model, load_initial_weights
from jaxlt.models.adaptation.kinds import UNADAPTED, names_tower
from jaxlt.models.clip.head_init import class_mean_kernel, classifier_params, text_kernel
from jaxlt.models.clip.model import Clip
from jaxlt.models.clip.prompts import IMAGENET_TEMPLATES, PromptTokenizer, class_prompts
from jaxlt.models.clip.snapshot import ClipSnapshot
from jaxlt.models.clip.vision_towers import PretrainedTower, load_tower

_TEXT_BATCH = 128


def initial_weights(recipe: Recipe, source: Source, feed: Feed) -> dict[str, Any]:
    """Returns variables that take the place of those drawn, see `jaxlt.training.make_state_fn`.

    Args:
        recipe: says which.
        source: the data, for class names and the images' shape.
        feed: its training images, for class means.

    Raises:
        UsageError: files are missing or do not fit, or classes have no names in words.
    """
    if recipe.init_weights is not None:
        return _of_file(recipe, source)
    if not names_tower(recipe.model):
        return {}
    tower = load_tower(recipe.model, source.image_shape)
    params = {"vision_model": tower.params}
    if recipe.classifier_init != "random":
        kernel = (
            _text_kernel(recipe, source, tower.snapshot)
            if recipe.classifier_init == "text"
            else _class_mean_kernel(recipe, source, feed, tower)
        )
        params["classifier"] = classifier_params(kernel, recipe.classifier)
    return {"params": params}


def _of_file(recipe: Recipe, source: Source) -> dict[str, Any]:
    model = build_model(recipe, source.num_classes, source.image_shape)
    image = jnp.zeros((1, *source.image_shape))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    drawn = () if recipe.init_last_block else (last_block(shapes["params"]),)
    assert recipe.init_weights is not None
    return load_initial_weights(recipe.init_weights, shapes, drawn=drawn)


def _class_mean_kernel(
    recipe: Recipe, source: Source, feed: Feed, tower: PretrainedTower
) -> np.ndarray:
    model = create_model(
        recipe.model,
        source.num_classes,
        dtype=jnp.dtype(recipe.precision),
        image_shape=source.image_shape,
        adaptation=UNADAPTED,
    )
    features, labels = feed.training_features(model, {"params": {"vision_model": tower.params}})
    return class_mean_kernel(features, labels, source.num_classes)


def _text_kernel(recipe: Recipe, source: Source, snapshot: ClipSnapshot | None) -> np.ndarray:
    if snapshot is None:
        raise UsageError(
            f"classifier_init text needs CLIP's text tower: model must be clip:SNAPSHOT, got "
            f"{recipe.model}"
        )
    names = names_in_words(source.class_names, recipe.class_names)
    templates = IMAGENET_TEMPLATES if recipe.prompt == ENSEMBLE else (recipe.prompt,)
    texts = [text for template in templates for text in class_prompts(names, template)]
    features = _text_features(snapshot, texts).reshape(len(templates), len(names), -1)
    return text_kernel(features.swapaxes(0, 1), snapshot.params["visual_projection"]["kernel"])


def _text_features(snapshot: ClipSnapshot, texts: list[str]) -> np.ndarray:
    tokens = PromptTokenizer(snapshot.directory, snapshot.config.text)(texts)
    clip = Clip(snapshot.config)

    @jax.jit
    def embed(params: Any, tokens: jax.Array) -> jax.Array:
        return jnp.asarray(clip.apply({"params": params}, tokens, method="text_embeddings"))

    # Batches of one size, so that one program serves them all.
    size = min(len(tokens), _TEXT_BATCH)
    padded = np.pad(tokens, ((0, -len(tokens) % size), (0, 0)), mode="edge")
    batches = [
        np.asarray(embed(snapshot.params, padded[start : start + size]))
        for start in range(0, len(padded), size)
    ]
    return np.concatenate(batches)[: len(tokens)]
