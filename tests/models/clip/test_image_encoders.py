import jax
import numpy as np
import pytest
from clip_snapshots import GOLDEN, write_golden_snapshot

from jaxlt.errors import UsageError
from jaxlt.models import create_model
from jaxlt.models.clip.dinov2 import load_dinov2
from jaxlt.models.clip.image_encoders import RANDOM, encoder_config, encoder_digest, load_encoder
from jaxlt.models.clip.snapshot import load_clip

# From CLIP's paper and the files of its checkpoints.
PARAMETERS = {"vit_b32": 87_456_000, "vit_b16": 85_799_424, "vit_l14": 303_179_776}


@pytest.fixture
def snapshot(tmp_path):
    return f"clip:{write_golden_snapshot(tmp_path / 'snapshot')}"


@pytest.mark.parametrize("size", PARAMETERS)
def test_random_ones_have_the_published_sizes(size):
    assert set(RANDOM) == {"tiny", *PARAMETERS}
    model = create_model(f"random:{size}", 10, image_shape=(224, 224, 3))
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, 224, 224, 3)), train=False)
    )
    leaves = jax.tree.leaves(shapes["params"]["vision_model"])
    assert sum(leaf.size for leaf in leaves) == PARAMETERS[size]


def test_random_weights_are_the_same_each_time():
    encoders = [load_encoder("random:tiny", (16, 16, 1)).params for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *encoders)


def test_a_clip_encoder_is_its_snapshots(snapshot):
    encoder = load_encoder(snapshot, (32, 32, 3))
    whole = load_clip(snapshot.removeprefix("clip:"))
    jax.tree.map(np.testing.assert_array_equal, encoder.params, whole.params["vision_model"])
    assert encoder.snapshot is not None
    assert encoder.config == encoder_config(snapshot, (32, 32, 3)) == whole.config.vision


def test_a_dinov2_encoder_is_its_snapshots(tmp_path):
    (tmp_path / "config.json").write_bytes((GOLDEN / "dinov2_config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "dinov2.safetensors").read_bytes())
    encoder = load_encoder(f"dinov2:{tmp_path}", (8, 8, 3))
    config, params = load_dinov2(tmp_path, image_size=8)
    jax.tree.map(np.testing.assert_array_equal, encoder.params, params)
    assert encoder.snapshot is None
    assert encoder.config == encoder_config(f"dinov2:{tmp_path}", (8, 8, 3)) == config
    assert not config.pre_layernorm


def test_gray_images_are_shown_in_every_channel(snapshot):
    model = create_model(snapshot, 3, image_shape=(32, 32, 1))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    params = model.init(jax.random.key(0), images, train=False)
    gray = model.apply(params, images, train=False)
    np.testing.assert_array_equal(gray, model.apply(params, images.repeat(3, -1), train=False))


class TestDigest:
    def test_goes_by_contents(self, tmp_path):
        here, there, other = (
            f"clip:{write_golden_snapshot(tmp_path / name, config=change)}"
            for name, change in (
                ("here", None),
                ("there", None),
                ("other", lambda config: config["vision_config"].update(hidden_act="gelu")),
            )
        )
        assert encoder_digest(here) == encoder_digest(there) != encoder_digest(other)

    def test_of_random_ones_is_their_name(self):
        assert encoder_digest("random:tiny") == "random:tiny"


@pytest.mark.parametrize("model", ["random:", "random:small", "klip:x"])
def test_unknown_ones_are_refused(model):
    with pytest.raises(UsageError, match=r"must be clip:SNAPSHOT, .*, vit:FILE or one of random"):
        load_encoder(model, (32, 32, 3))


@pytest.mark.parametrize("shape", [(32, 16, 3), (30, 30, 3), (32, 32, 4)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(UsageError, match="must be squares whose side is a multiple of 4"):
        encoder_config("random:tiny", shape)
