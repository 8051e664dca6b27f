"""Pretrained backbones by name, with what each was trained to see."""

import json

import pytest
from clip_snapshots import write_golden_snapshot

from jaxlt import UsageError, recipes


def test_clip(tmp_path):
    place = f"clip:{write_golden_snapshot(tmp_path / 'clip')}"
    config = json.loads((tmp_path / "clip" / "config.json").read_text())["vision_config"]
    backbone = recipes.pretrained_backbone(place)
    assert isinstance(backbone.network, recipes.Clip)
    assert backbone.network.label == place
    assert backbone[1:] == (config["image_size"], "clip", config["patch_size"])


@pytest.mark.parametrize(
    ("stored", "patch", "side"), [(518, 14, 224), (42, 14, 42), (520, 20, 220)]
)
def test_dinov2_is_shown_no_more_than_224_pixels(tmp_path, stored, patch, side):
    values = {"model_type": "dinov2", "image_size": stored, "patch_size": patch}
    (tmp_path / "config.json").write_text(
        json.dumps({**values, "hidden_size": 64, "num_attention_heads": 1})
    )
    backbone = recipes.pretrained_backbone(f"dinov2:{tmp_path}")
    assert isinstance(backbone.network, recipes.DINOv2)
    assert backbone[1:] == (side, "imagenet", patch)


def test_a_resnet(tmp_path):
    backbone = recipes.pretrained_backbone(f"resnet50:{tmp_path}/weights.pth")
    weights = f"{tmp_path}/weights.pth"
    assert backbone.network == recipes.ImageNetResNet(architecture="resnet50", weights=weights)
    assert backbone[1:] == (224, "imagenet", 1)


@pytest.mark.parametrize("place", ["vgg:x", "dinov2", "clip:", "", "random:tiny"])
def test_others_are_refused(place):
    with pytest.raises(
        UsageError, match=r"backbone must be one of dinov2:PLACE, .*vit:PLACE, .*, got "
    ):
        recipes.pretrained_backbone(place)
