from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_snapshots import GOLDEN, MERGES, vocabulary, write_golden_snapshot
from safetensors.numpy import load_file

from jaxlt.models.clip.config import ClipConfig, TextConfig, VisionConfig
from jaxlt.models.clip.model import ClipModel, ImageEncoder, TextEncoder
from jaxlt.models.clip.prompts import PromptTokenizer
from jaxlt.models.clip.snapshot import load_clip

PROMPTS = ["a photo of a cat.", "photo", "", "A PHOTO of photos of photos of photos", "café 12"]


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "clip_io.npz")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return load_clip(write_golden_snapshot(tmp_path_factory.mktemp("golden")))


def test_embeddings_are_the_golden_ones(snapshot, golden):
    variables = {"params": snapshot.params}
    images, texts = jax.jit(ClipModel(snapshot.config).apply)(
        variables, golden["pixel_values_nhwc"], golden["input_ids"]
    )
    np.testing.assert_allclose(images, golden["image_embeds"], atol=1e-4)
    np.testing.assert_allclose(texts, golden["text_embeds"], atol=1e-4)


@pytest.mark.parametrize("remat", [False, True])
def test_the_image_encoders_tokens_and_features_are_the_golden_ones(snapshot, golden, remat):
    encoder = ImageEncoder(snapshot.config.vision, remat=remat)
    variables, images = {"params": snapshot.params["vision_model"]}, golden["pixel_values_nhwc"]
    tokens = jax.jit(partial(encoder.apply, method="tokens"))(variables, images)
    np.testing.assert_allclose(tokens, golden["last_hidden_state"], atol=1e-4)
    features = jax.jit(encoder.apply)(variables, images)
    np.testing.assert_allclose(features, golden["class_token_after_post_layernorm"], atol=1e-4)


def test_remat_keeps_less_and_changes_no_gradient(snapshot, golden):
    params, images = snapshot.params["vision_model"], golden["pixel_values_nhwc"]

    def loss_of(remat):
        encoder = ImageEncoder(snapshot.config.vision, remat=remat)
        return lambda params: jnp.square(encoder.apply({"params": params}, images)).sum()

    gradients = [jax.jit(jax.grad(loss_of(remat)))(params) for remat in (False, True)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients)
    kept = [
        sum(
            x.size for x in jax.tree.leaves(jax.eval_shape(lambda p, f=f: jax.vjp(f, p)[1], params))
        )
        for f in map(loss_of, (False, True))
    ]
    assert kept[1] < kept[0] / 2


def test_bfloat16_rounds_and_hands_out_float32(snapshot, golden):
    variables = {"params": snapshot.params["vision_model"]}
    encoder = ImageEncoder(snapshot.config.vision, jnp.bfloat16)
    features = jax.jit(encoder.apply)(variables, golden["pixel_values_nhwc"])
    assert features.dtype == jnp.float32
    expected = golden["class_token_after_post_layernorm"]
    difference = np.abs(features - expected).max()
    assert 1e-4 < difference < 0.1 * np.abs(expected).max()


def _size_of(encoder, *inputs):
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), *inputs)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_sizes_are_the_published_ones():
    images = jnp.zeros((1, 224, 224, 3))
    assert _size_of(ImageEncoder(VisionConfig(patch_size=16)), images) == 85_799_424
    # Hugging Face's CLIPModel for ViT-B/32 has 151,277,313 with the temperature.
    assert _size_of(ClipModel(ClipConfig()), images, jnp.zeros((1, 77), int)) == 151_277_312


def test_new_weights_are_drawn_as_openai_drew_them():
    config = VisionConfig(
        image_size=2,
        patch_size=2,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    encoder = ImageEncoder(config)
    variables = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
    block = variables["params"]["encoder_layers_1"]
    deviations = {
        ("self_attn", "q_proj"): 128**-0.5,
        ("self_attn", "out_proj"): (4 * 128) ** -0.5,
        ("mlp", "fc1"): (2 * 128) ** -0.5,
        ("mlp", "fc2"): (4 * 128) ** -0.5,
    }
    for (module, layer), expected in deviations.items():
        np.testing.assert_allclose(jnp.std(block[module][layer]["kernel"]), expected, rtol=0.03)
        assert not block[module][layer]["bias"].any()


def test_images_of_another_size_are_refused(snapshot):
    encoder = ImageEncoder(snapshot.config.vision)
    with pytest.raises(ValueError, match=r"images must be of \(32, 32\) pixels, got \(40, 32\)"):
        encoder.apply({"params": snapshot.params["vision_model"]}, jnp.zeros((1, 40, 32, 3)))


@cache
def _text_encoder(eos):
    config = TextConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=10,
        max_position_embeddings=6,
        eos_token_id=eos,
    )
    encoder = TextEncoder(config)
    variables = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 6), int))
    # Matrices that weigh enough for a token to tell in those after it.
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: 0.5 * generator.normal(size=leaf.shape) if leaf.ndim > 1 else leaf, variables
    )
    features = jax.jit(lambda tokens: encoder.apply(variables, tokens))
    return lambda rows: np.asarray(features(jnp.array(rows)))


@pytest.mark.parametrize("eos", [2, 7])
def test_the_features_are_those_of_the_first_end_of_text(eos):
    end = 9 if eos == 2 else eos
    encoder = _text_encoder(eos)
    features = encoder([[1, 3, end, 0, 0, 0], [1, 3, end, end, 5, 1], [1, 4, end, 0, 0, 0]])
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)
    assert np.abs(features[0] - features[2]).max() > 0.1
    np.testing.assert_allclose(encoder([[1, 3, end]]), features[:1], atol=1e-5)


def test_only_old_checkpoints_take_the_greatest_token_for_the_end():
    rows = [[1, 2, 3, 9, 0, 0]]
    assert np.abs(_text_encoder(2)(rows) - _text_encoder(7)(rows)).max() > 0.1


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def huggingface(request, tmp_path_factory):
    """Hugging Face's own network with random weights, its tokenizer, and their snapshot."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    end = len(vocabulary()) - 1
    shape = {"num_hidden_layers": 3, "hidden_act": request.param}
    # The two rules for the end-of-text token.
    eos = 2 if request.param == "quick_gelu" else end
    config = transformers.CLIPConfig(
        text_config={
            **shape,
            "hidden_size": 36,
            "intermediate_size": 40,
            "num_attention_heads": 3,
            "vocab_size": end + 1,
            "max_position_embeddings": 14,
            "eos_token_id": eos,
        },
        vision_config={
            **shape,
            "hidden_size": 24,
            "intermediate_size": 52,
            "num_attention_heads": 4,
            "image_size": 24,
            "patch_size": 8,
        },
        projection_dim=20,
    )
    torch.manual_seed(0)
    network = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    tokenizer = transformers.CLIPTokenizerFast(vocab=vocabulary(), merges=MERGES)
    directory = tmp_path_factory.mktemp("snapshot")
    network.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return network, tokenizer, directory


@pytest.mark.parametrize("side", [24, 40, 16])
def test_images_get_hugging_faces_embeddings(huggingface, side):
    torch = pytest.importorskip("torch")
    network, _, directory = huggingface
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        pooled = network.vision_model(pixels, interpolate_pos_encoding=side != 24).pooler_output
        expected = network.visual_projection(pooled).numpy()
    ours = load_clip(directory, image_size=side)
    assert ours.config.vision.image_size == side
    variables = {"params": ours.params}
    embed = jax.jit(partial(ClipModel(ours.config).apply, method="image_embeddings"))
    embeddings = embed(variables, images)
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)


def test_prompts_get_hugging_faces_embeddings(huggingface):
    torch = pytest.importorskip("torch")
    network, tokenizer, directory = huggingface
    theirs = tokenizer(PROMPTS, padding=True, truncation=True, max_length=14, return_tensors="pt")
    assert theirs["attention_mask"].sum(1).tolist() != [14] * len(PROMPTS)
    with torch.no_grad():
        pooled = network.text_model(**theirs).pooler_output
        expected = network.text_projection(pooled).numpy()
    ours = load_clip(directory)
    tokens = PromptTokenizer(directory, ours.config.text)(PROMPTS)
    embed = jax.jit(partial(ClipModel(ours.config).apply, method="text_embeddings"))
    embeddings = embed({"params": ours.params}, tokens)
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    assert np.abs(np.diff(expected, axis=0)).max(1).min() > 0.01


def test_every_tensor_of_the_file_has_its_place(snapshot):
    held = sum(leaf.size for leaf in jax.tree.leaves(snapshot.params))
    assert held == sum(x.size for x in load_file(GOLDEN / "clip.safetensors").values()) - 1
