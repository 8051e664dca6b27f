"""The adapted encoder as a classifier: on the golden checkpoint."""

from typing import Any

import jax
import numpy as np
import pytest
from adaptation_sizes import added_parameters
from clip_snapshots import GOLDEN, write_golden_snapshot
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlt.models.adaptation.kinds import EncoderAdaptation
from jaxlt.models.adaptation.modules import UNADAPTED
from jaxlt.models.adaptation.trainable import trainable
from jaxlt.models.clip.config import VisionConfig
from jaxlt.models.clip.model import ClipClassifier
from jaxlt.models.clip.snapshot import load_clip

CLASSES = 100
EXACT_AT_FIRST = ("adaptformer", "adapter", "lora")
ADDING = (*EXACT_AT_FIRST, "vpt_shallow", "vpt_deep", "ssf")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "clip_io.npz")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return load_clip(write_golden_snapshot(tmp_path_factory.mktemp("golden")))


def classifier(config, *kinds, **fields):
    adaptation = EncoderAdaptation(kinds, **fields) if kinds else UNADAPTED
    adaptation = adaptation.with_rank(CLASSES, config.num_hidden_layers)
    return ClipClassifier(
        num_classes=CLASSES, classifier="cosine", config=config, adaptation=adaptation
    )


def pretrained(model, snapshot, images):
    params = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))["params"]
    encoder = flatten_dict({"vision_model": snapshot.params["vision_model"]})
    return unflatten_dict({**flatten_dict(params), **encoder})


def features(model, params, images):
    return jax.jit(lambda p, x: model.apply({"params": p}, x, train=True, method="features"))(
        params, images
    )


@pytest.mark.parametrize(
    "kinds",
    [
        *(
            pytest.param(kinds, marks=pytest.mark.soak)
            for kinds in [(), *((kind,) for kind in EXACT_AT_FIRST)]
        ),
        EXACT_AT_FIRST,
    ],
)
def test_features_are_the_golden_ones_at_first(snapshot, golden, kinds):
    model, images = classifier(snapshot.config.vision, *kinds), golden["pixel_values_nhwc"]
    found = features(model, pretrained(model, snapshot, images), images)
    np.testing.assert_allclose(found, golden["class_token_after_post_layernorm"], atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in ADDING if kind not in EXACT_AT_FIRST])
def test_prompts_and_scales_change_the_features(snapshot, golden, kind):
    model, images = classifier(snapshot.config.vision, kind), golden["pixel_values_nhwc"]
    found = features(model, pretrained(model, snapshot, images), images)
    difference = np.abs(found - golden["class_token_after_post_layernorm"])
    assert 1e-3 < difference.max() < 2


@pytest.mark.parametrize("kind", ADDING)
def test_every_added_parameter_trains_and_nothing_else_of_the_encoder(snapshot, golden, kind):
    model, images = classifier(snapshot.config.vision, kind), golden["pixel_values_nhwc"]
    params = pretrained(model, snapshot, images)
    encoder = flatten_dict(snapshot.params["vision_model"])
    mask = flatten_dict(trainable(model.adaptation, params))
    added = {path for path in mask if path[1:] not in encoder and path[0] == "vision_model"}
    assert {path for path, trains in mask.items() if trains} == added | {("classifier", "kernel")}
    config = snapshot.config.vision
    expected = added_parameters(
        model.adaptation,
        width=config.hidden_size,
        hidden=config.intermediate_size,
        num_blocks=config.num_hidden_layers,
    )
    leaves: dict[Any, Any] = flatten_dict(params)
    assert sum(leaves[path].size for path in added) == expected[kind]


@pytest.mark.parametrize(("num_classes", "a_block"), [(100, 8453), (1000, 51_489)])
def test_adaptformers_published_size_on_vit_b_16(num_classes, a_block):
    config = VisionConfig(patch_size=16)
    adaptation = EncoderAdaptation().with_rank(num_classes, config.num_hidden_layers)
    model = ClipClassifier(
        num_classes=num_classes, classifier="cosine", config=config, adaptation=adaptation
    )
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)[
        "params"
    ]
    leaves: dict[Any, Any] = flatten_dict(params)
    sizes = {path: leaf.size for path, leaf in leaves.items()}
    added = sum(size for path, size in sizes.items() if "adaptformer" in path)
    assert added == config.num_hidden_layers * a_block
    encoder = sum(size for path, size in sizes.items() if path[0] == "vision_model")
    assert encoder - added == 85_799_424
