import json

import pytest

from jaxlt.errors import UsageError
from jaxlt.models.clip.config import ClipConfig, TextConfig, VisionConfig, read_config


def _written(path, **values):
    path.write_text(
        json.dumps({"model_type": "clip", "text_config": {}, "vision_config": {}, **values})
    )
    return path


def test_what_a_configuration_leaves_out_is_vit_b_32(tmp_path):
    assert read_config(_written(tmp_path / "config.json")) == ClipConfig()
    assert ClipConfig().vision.grid == 7


def test_a_configuration_is_read(tmp_path):
    """What openai/clip-vit-large-patch14 has, as far as a network depends on it."""
    width = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    path = _written(
        tmp_path / "config.json",
        projection_dim=768,
        text_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "eos_token_id": 2,
            "bos_token_id": 0,
            "hidden_act": "quick_gelu",
            "top_k": 50,
        },
        vision_config={**width, "num_hidden_layers": 24, "patch_size": 14, "dropout": 0.0},
    )
    text = TextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, eos_token_id=2
    )
    vision = VisionConfig(**width, num_hidden_layers=24, patch_size=14)
    assert read_config(path) == ClipConfig(vision=vision, text=text, projection_dim=768)


def test_no_file_takes_clips_first_norm_away(tmp_path):
    path = _written(tmp_path / "config.json", vision_config={"pre_layernorm": False})
    assert read_config(path).vision.pre_layernorm


def test_another_image_size_changes_that_alone():
    larger = ClipConfig().for_images_of(256)
    assert larger.vision.image_size == 256
    assert larger.vision.grid == 8
    assert larger.for_images_of(224) == ClipConfig()
    with pytest.raises(UsageError, match=r"image_size must be a multiple of patch_size.*, got 250"):
        ClipConfig().for_images_of(250)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model_type": "siglip"}, "model_type in .* must be 'clip' .*, got 'siglip'"),
        ({"text_config": None}, "text_config in .* must be an object, got None"),
        ({"projection_dim": 0}, "projection_dim in .* must be a positive integer"),
        (
            {"vision_config": {"hidden_act": "relu"}},
            "vision_config: hidden_act must be one of quick_gelu, gelu, got 'relu'",
        ),
        (
            {"vision_config": {"hidden_act": ["gelu"]}},
            r"hidden_act must be one of .*, got \['gelu'\]",
        ),
        (
            {"vision_config": {"patch_size": 15}},
            "image_size must be a multiple of patch.*, got 224",
        ),
        (
            {"vision_config": {"num_attention_heads": 5}},
            "hidden_size must be a multiple .*, got 768",
        ),
        (
            {"text_config": {"vocab_size": "9"}},
            "text_config: vocab_size must be a posit.*, got '9'",
        ),
        ({"text_config": {"num_hidden_layers": True}}, "num_hidden_layers must be .*, got True"),
        (
            {"text_config": {"layer_norm_eps": "x"}},
            "layer_norm_eps must be a positive number, got 'x'",
        ),
    ],
)
def test_what_fits_no_network_is_refused(tmp_path, values, expected):
    path = _written(tmp_path / "config.json", **values)
    with pytest.raises(UsageError, match=expected) as error:
        read_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[1]", '{"model_type"', None])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="must be") as error:
        read_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
