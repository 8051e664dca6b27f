import itertools
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adaptation_sizes import added_parameters
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlt
from jaxlt.errors import UsageError
from jaxlt.models import ImageClassifier, LayerNorm
from jaxlt.models.adaptation.kinds import EncoderAdaptation, bottleneck_rank
from jaxlt.models.adaptation.modules import (
    UNADAPTED,
    Adapter,
    LowRank,
    Prompts,
    ScaleShift,
    adapted,
    adapted_mlp,
    prompted,
)
from jaxlt.models.adaptation.trainable import join, split, trainable

WIDTH, HIDDEN, BLOCKS, CLASSES, PATCH = 8, 20, 2, 5, 4
TOKENS = 5  # four patches and the class token
ADDING = ("adaptformer", "adapter", "lora", "vpt_shallow", "vpt_deep", "ssf")
EXACT_AT_FIRST = ("adaptformer", "adapter", "lora")


class Attention(nn.Module):
    adaptation: EncoderAdaptation

    @nn.compact
    def __call__(self, x):
        project = lambda name, x: adapted(  # noqa: E731
            self.adaptation, name, x, nn.Dense(x.shape[-1], name=name)(x)
        )
        query, key, value = (project(name, x) for name in ("q_proj", "k_proj", "v_proj"))
        weights = jax.nn.softmax(query @ key.swapaxes(1, 2) * x.shape[-1] ** -0.5)
        return project("out_proj", weights @ value)


class Mlp(nn.Module):
    adaptation: EncoderAdaptation

    @nn.compact
    def __call__(self, x):
        y = adapted(self.adaptation, "fc1", x, nn.Dense(HIDDEN, name="fc1")(x))
        y = nn.gelu(y)
        return adapted(self.adaptation, "fc2", y, nn.Dense(x.shape[-1], name="fc2")(y))


class Block(nn.Module):
    adaptation: EncoderAdaptation
    number: int

    @nn.compact
    def __call__(self, x):
        x = prompted(self.adaptation, x, block=self.number, tokens=TOKENS, patch=PATCH)
        y = adapted(self.adaptation, "layer_norm1", x, LayerNorm(name="layer_norm1")(x))
        x = x + Attention(self.adaptation, name="attention")(y)
        y = adapted(self.adaptation, "layer_norm2", x, LayerNorm(name="layer_norm2")(x))
        return x + adapted_mlp(self.adaptation, x, Mlp(self.adaptation, name="mlp")(y))


class Transformer(ImageClassifier, kw_only=True):
    """CLIP's image encoder in small: class token, layer norms before and after the blocks."""

    adaptation: EncoderAdaptation

    @nn.compact
    def features(self, images, *, train):
        del train
        x = nn.Conv(WIDTH, (PATCH, PATCH), strides=PATCH, use_bias=False, name="patches")(images)
        x = x.reshape(len(x), -1, WIDTH)
        token = self.param("class_token", nn.initializers.normal(1.0), (WIDTH,))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, WIDTH)), x], axis=1)
        x = LayerNorm(name="ln_pre")(x)
        for number in range(BLOCKS):
            x = Block(self.adaptation, number, name=f"encoder_layers_{number}")(x)
        return LayerNorm(name="ln_post")(x[:, 0])


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FROZEN = UNADAPTED
IMAGES = _normal(1, 6, 8, 8, 3)
LABELS = np.array([0, 1, 2, 3, 4, 0])


def _model(adaptation) -> Any:
    return Transformer(num_classes=CLASSES, adaptation=adaptation)


def _of(*kinds, **fields) -> EncoderAdaptation:
    return EncoderAdaptation(kinds, **fields).with_rank(100, BLOCKS)


def _init(adaptation) -> Any:
    return _model(adaptation).init(jax.random.key(0), IMAGES[:1], train=False)["params"]


@cache
def _shapes(adaptation) -> Any:
    return jax.eval_shape(lambda: _init(adaptation))


@cache
def _initial(adaptation) -> Any:
    """As a checkpoint would give them: the modules drawn, the network's own those of one file."""
    drawn = jax.jit(_init, static_argnums=0)(adaptation)
    return drawn if adaptation == FROZEN else join(drawn, _initial(FROZEN))


def _moved(shapes) -> Any:
    """Every leaf away from a start at 0 or 1."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: 0.5 * generator.normal(size=leaf.shape).astype(np.float32), shapes
    )


@partial(jax.jit, static_argnums=0)
def _logits(adaptation, params) -> Any:
    return _model(adaptation).apply({"params": params}, IMAGES, train=False)


def _paths(tree) -> set[str]:
    return {"/".join(path) for path, chosen in flatten_dict(tree).items() if chosen is not False}


def _trained(adaptation) -> set[str]:
    mask = trainable(adaptation, _shapes(adaptation))
    return {name for name in _paths(mask) if not name.startswith("classifier/")}


class TestRank:
    @pytest.mark.parametrize(
        ("classes", "rank"), [(10, 1), (100, 4), (365, 8), (1000, 32), (8142, 256)]
    )
    def test_published_values(self, classes, rank):
        assert bottleneck_rank(classes, 12) == rank

    @settings(max_examples=200)
    @given(classes=st.integers(2, 10**6), blocks=st.integers(1, 100), more=st.integers(0, 10**4))
    def test_is_a_power_of_two_that_grows_with_the_classes(self, classes, blocks, more):
        rank = bottleneck_rank(classes, blocks)
        assert rank & (rank - 1) == 0
        assert rank <= bottleneck_rank(classes + more, blocks)
        assert rank >= bottleneck_rank(classes, blocks + more)
        # The largest power of two within K / (2 L), and 1 where there is none.
        assert rank == 1 or 2 * blocks * rank <= classes
        assert classes < 2 * blocks * 2 * rank

    def test_one_that_is_given_stays(self):
        assert EncoderAdaptation(rank=3).with_rank(1000, 12).rank == 3
        assert EncoderAdaptation().with_rank(1000, 12).rank == 32
        assert FROZEN.with_rank(1000, 12) == FROZEN

    def test_must_be_set_before_the_network_is_built(self):
        with pytest.raises(ValueError, match="with_rank"):
            _shapes(EncoderAdaptation())


class TestCounts:
    @pytest.mark.parametrize(("classes", "count"), [(100, 8453), (1000, 51_489)])
    def test_of_a_block_of_vit_b_with_adaptformer(self, classes, count):
        adaptation = EncoderAdaptation().with_rank(classes, 12)
        added = added_parameters(adaptation, width=768, hidden=3072, num_blocks=12)
        assert added == {"adaptformer": 12 * count}
        block = jax.eval_shape(
            Adapter(adaptation.set_rank, scaled=True).init, jax.random.key(0), jnp.zeros((1, 768))
        )
        assert sum(leaf.size for leaf in jax.tree.leaves(block)) == count

    @pytest.mark.parametrize(
        "adaptation",
        [
            *(_of(kind) for kind in ADDING),
            _of("lora", lora_projections=("k_proj", "out_proj", "fc1")),
            _of("lora", lora_projections=("fc2",), rank=7),
            _of("adaptformer", "vpt_deep", "ssf", "bias", prompt_length=3),
            _of("partial"),
        ],
        ids=str,
    )
    def test_are_those_of_the_network(self, adaptation):
        added = added_parameters(adaptation, width=WIDTH, hidden=HIDDEN, num_blocks=BLOCKS)
        count = lambda params: sum(leaf.size for leaf in jax.tree.leaves(params))  # noqa: E731
        assert sum(added.values()) == count(_shapes(adaptation)) - count(_shapes(FROZEN))
        assert set(added) == set(adaptation.kinds) & set(ADDING)


class TestInitialFunction:
    @pytest.mark.parametrize(
        "kinds",
        [
            *(pytest.param((kind,), marks=pytest.mark.soak) for kind in EXACT_AT_FIRST),
            EXACT_AT_FIRST,
        ],
    )
    def test_is_that_of_the_frozen_network(self, kinds):
        adaptation = _of(*kinds)
        frozen = _logits(FROZEN, _initial(FROZEN))
        np.testing.assert_allclose(_logits(adaptation, _initial(adaptation)), frozen, atol=1e-6)
        moved = join(_moved(_shapes(adaptation)), _initial(FROZEN))
        assert np.abs(_logits(adaptation, moved) - frozen).max() > 0.01

    def test_is_nearly_that_of_the_frozen_network_with_ssf(self):
        adaptation = _of("ssf")
        frozen = _logits(FROZEN, _initial(FROZEN))
        change = np.abs(_logits(adaptation, _initial(adaptation)) - frozen)
        assert 0.01 < change.max() < 0.5 * np.std(frozen)

    @pytest.mark.parametrize("kind", ["bias", "layer_norm", "partial", "full", "linear_probe"])
    def test_is_untouched_where_nothing_is_added(self, kind):
        assert _paths(_shapes(_of(kind))) == _paths(_shapes(FROZEN))


class TestBottlenecks:
    def test_adaptformer_by_hand(self):
        self._check(Adapter(3, scaled=True), scaled=True)

    def test_adapter_by_hand(self):
        self._check(Adapter(3), scaled=False)

    def _check(self, module, *, scaled):
        x = 4 * _normal(0, 2, 5, WIDTH) + 1
        params = _moved(module.init(jax.random.key(0), x)["params"])
        y = module.apply({"params": params}, x)
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        normal = normal * params["norm"]["scale"] + params["norm"]["bias"]
        units = np.maximum(normal @ params["down"]["kernel"] + params["down"]["bias"], 0)
        expected = units @ params["up"]["kernel"] + params["up"]["bias"]
        factor = params["scale"] if scaled else 1
        assert ("scale" in params) == scaled
        np.testing.assert_allclose(y, factor * expected, atol=1e-5)

    @pytest.mark.parametrize("module", [Adapter(64, scaled=True), Adapter(64)])
    def test_start(self, module):
        params = module.init(jax.random.key(0), jnp.zeros((1, 768)))["params"]
        down = np.asarray(params["down"].pop("kernel"))
        # kaiming_normal_ with a = sqrt(5): gain sqrt(2 / (1 + 5)).
        assert down.std() == pytest.approx(np.sqrt(1 / 3 / 768), rel=0.01)
        assert np.mean(np.abs(down) > 3 * down.std()) == pytest.approx(0.0027, rel=0.2)
        ones = [params["norm"].pop("scale"), *([params.pop("scale")] if "scale" in params else [])]
        assert all((leaf == 1).all() for leaf in ones)
        assert not any(leaf.any() for leaf in jax.tree.leaves(params))

    def test_adaptformer_sees_the_stream_and_adapter_the_mlps_output(self):
        """Each alone changes what is added by what it makes of its own input."""
        stream, y = (_normal(seed, 2, WIDTH) for seed in (0, 1))
        modules = {"adaptformer": Adapter(16, scaled=True), "adapter": Adapter(16)}
        for kind, seen in (("adaptformer", stream), ("adapter", y)):
            module = modules[kind]
            params = _moved(module.init(jax.random.key(0), y)["params"])
            result = _Holder(_of(kind, rank=16)).apply({"params": {kind: params}}, stream, y)
            added = np.asarray(module.apply({"params": params}, seen))
            np.testing.assert_allclose(np.asarray(result), y + added, atol=1e-5)


class _Holder(nn.Module):
    adaptation: EncoderAdaptation

    @nn.compact
    def __call__(self, stream, y):
        return adapted_mlp(self.adaptation, stream, y)


class TestLowRank:
    @settings(max_examples=20, deadline=None)
    @given(
        rank=st.integers(1, 6),
        inputs=st.integers(1, 9),
        features=st.integers(1, 9),
        seed=st.integers(0, 99),
    )
    def test_is_a_dense_layer_with_the_product(self, rank, inputs, features, seed):
        generator = np.random.default_rng(seed)
        x, a, b = (
            generator.normal(size=shape)
            for shape in ((3, inputs), (inputs, rank), (rank, features))
        )
        y = LowRank(rank, features).apply({"params": {"A": a, "B": b}}, x)
        np.testing.assert_allclose(np.asarray(y), x @ ((a @ b) / rank), atol=1e-5)

    def test_start(self):
        params = LowRank(4, 30).init(jax.random.key(0), jnp.zeros((1, 768)))["params"]
        a = np.asarray(params["A"])
        # kaiming_uniform_ with a = sqrt(5), whose bound is 1 / sqrt(fan), the fan that of the rank.
        assert 0.499 < np.abs(a).max() <= 0.5
        assert a.mean() == pytest.approx(0, abs=0.02)
        assert a.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.02)
        assert not np.asarray(params["B"]).any()

    @pytest.mark.parametrize(
        "projections", [("q_proj", "v_proj"), ("k_proj", "out_proj", "fc1", "fc2")]
    )
    def test_in_the_network_equals_the_product_merged_into_the_kernel(self, projections):
        adaptation = _of("lora", lora_projections=projections)
        params = _moved(_shapes(adaptation))
        merged = _moved(_shapes(adaptation))
        for number, projection in itertools.product(range(BLOCKS), projections):
            module = "mlp" if projection in ("fc1", "fc2") else "attention"
            lora = params[f"encoder_layers_{number}"][module][f"lora_{projection}"]
            kernel = merged[f"encoder_layers_{number}"][module][projection]["kernel"]
            kernel += lora["A"] @ lora["B"] / adaptation.set_rank
        np.testing.assert_allclose(
            _logits(adaptation, params), _logits(FROZEN, merged), atol=1e-4, rtol=1e-4
        )


class TestScaleShift:
    def test_start(self):
        params = ScaleShift().init(jax.random.key(0), jnp.zeros((1, 20_000)))["params"]
        for name, mean in (("scale", 1), ("shift", 0)):
            values = np.asarray(params[name])
            assert values.mean() == pytest.approx(mean, abs=0.001)
            assert values.std() == pytest.approx(0.02, rel=0.03)
        assert not np.allclose(np.asarray(params["scale"]) - 1, np.asarray(params["shift"]))

    def test_by_hand_in_a_block(self):
        """After every operation, and after LoRA."""
        adaptation = _of("ssf", "lora")
        params = _shapes(adaptation)["encoder_layers_0"]
        places = {
            name for module in (params, params["attention"], params["mlp"]) for name in module
        }
        assert {name for name in places if name.startswith("ssf_")} == {
            f"ssf_{name}"
            for name in (
                "layer_norm1",
                "q_proj",
                "k_proj",
                "v_proj",
                "out_proj",
                "layer_norm2",
                "fc1",
                "fc2",
            )
        }

        class Operation(nn.Module):
            @nn.compact
            def __call__(self, x, y):
                return adapted(adaptation, "q_proj", x, y)

        x, y = (_normal(seed, 2, WIDTH) for seed in (0, 1))
        moved = _moved(Operation().init(jax.random.key(0), x, y)["params"])
        lora, ssf = moved["lora_q_proj"], moved["ssf_q_proj"]
        expected = (y + x @ lora["A"] @ lora["B"] / adaptation.set_rank) * ssf["scale"]
        result = Operation().apply({"params": moved}, x, y)
        np.testing.assert_allclose(np.asarray(result), expected + ssf["shift"], atol=1e-5)


class TestPrompts:
    def test_start(self):
        params = Prompts(50, 16).init(jax.random.key(0), jnp.zeros((1, 3, 768)), 3)["params"]
        prompts, bound = np.asarray(params["prompts"]), np.sqrt(6 / (3 * 16 * 16 + 768))
        assert prompts.shape == (50, 768)
        assert 0.999 * bound < np.abs(prompts).max() <= bound
        assert prompts.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)

    def test_come_after_the_images_tokens_in_place_of_earlier_ones(self):
        x = _normal(0, 2, 7, WIDTH)
        prompts = _normal(1, 4, WIDTH)
        y = Prompts(4, PATCH).apply({"params": {"prompts": prompts}}, x, 3)
        expected = [[*image[:3], *prompts] for image in x]
        np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-6)

    @pytest.mark.parametrize(("kind", "blocks"), [("vpt_shallow", 1), ("vpt_deep", BLOCKS)])
    def test_are_those_of_the_blocks_that_have_some(self, kind, blocks):
        names = {f"encoder_layers_{number}/prompts/prompts" for number in range(blocks)}
        assert {name for name in _paths(_shapes(_of(kind))) if "prompts" in name} == names
        assert _trained(_of(kind)) == names


class TestTrainable:
    def test_with_a_linear_probe_is_the_classifier_alone(self):
        mask = trainable(FROZEN, _shapes(FROZEN))
        assert _paths(mask) == {"classifier/kernel", "classifier/bias"}

    def test_all_with_full(self):
        assert all(jax.tree.leaves(trainable(_of("full"), _shapes(FROZEN))))

    @pytest.mark.parametrize("kinds", [("bias",), ("layer_norm",), ("bias", "layer_norm")])
    def test_biases_and_layer_norms_of_the_blocks(self, kinds):
        in_block = {
            "bias": "layer_norm1/bias layer_norm2/bias attention/q_proj/bias attention/k_proj/bias "
            "attention/v_proj/bias attention/out_proj/bias mlp/fc1/bias mlp/fc2/bias",
            "layer_norm": "layer_norm1/scale layer_norm1/bias layer_norm2/scale layer_norm2/bias",
        }
        assert _trained(_of(*kinds)) == {
            f"encoder_layers_{number}/{name}"
            for number in range(BLOCKS)
            for kind in kinds
            for name in in_block[kind].split()
        }

    @pytest.mark.parametrize("last", [1, 2])
    def test_the_last_blocks_with_partial(self, last):
        blocks = {f"encoder_layers_{number}" for number in range(BLOCKS - last, BLOCKS)}
        paths = _paths(_shapes(FROZEN))
        assert _trained(_of("partial", last_blocks=last)) == {
            name for name in paths if name.split("/")[0] in blocks
        }

    def test_blocks_are_ordered_by_number(self):
        params = {f"encoder_layers_{number}": {"fc1": {"bias": number}} for number in range(12)}
        mask = trainable(_of("partial", last_blocks=2), params)
        assert _paths(mask) == {"encoder_layers_10/fc1/bias", "encoder_layers_11/fc1/bias"}

    @pytest.mark.parametrize("kind", ADDING)
    def test_what_was_added(self, kind):
        adaptation = _of(kind)
        assert _trained(adaptation) == _paths(_shapes(adaptation)) - _paths(_shapes(FROZEN))

    def test_is_the_union_of_the_kinds(self):
        together = _of("adaptformer", "lora", "vpt_deep", "layer_norm", "partial")
        expected = set().union(*(_trained(_of(kind)) for kind in together.kinds))
        # What is added to the last block is trained either way.
        assert _trained(together) == expected

    @pytest.mark.parametrize(
        ("adaptation", "message"),
        [
            (_of("adaptformer"), "network must have parameters for the adaptation adaptformer"),
            (_of("vpt_deep"), "network must have parameters for the adaptation vpt_deep"),
            (_of("partial", last_blocks=3), "at most the network's 2 blocks, got 3"),
        ],
    )
    def test_a_network_without_it_is_refused(self, adaptation, message):
        with pytest.raises(UsageError, match=message):
            trainable(adaptation, _shapes(FROZEN))

    def test_a_network_without_blocks_is_refused(self):
        params = {"layer1_0": {"conv1": {"kernel": 1}}, "classifier": {"bias": 1}}
        for kind in ("bias", "layer_norm", "partial"):
            with pytest.raises(UsageError, match="must"):
                trainable(_of(kind), params)


def _class_losses(adaptation, params) -> jaxlt.ClassLosses:
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        _logits(adaptation, params), LABELS
    )
    return jaxlt.class_losses(losses, LABELS, CLASSES)


class TestSplit:
    @pytest.mark.parametrize(
        "kinds",
        [
            ("adaptformer", "adapter", "lora", "vpt_deep", "ssf", "bias"),
            ("vpt_shallow", "layer_norm"),
            ("partial",),
        ],
    )
    def test_gradients_reach_all_that_trains(self, kinds):
        adaptation = _of(*kinds)
        params = _moved(_shapes(adaptation))
        trained, frozen = split(params, trainable(adaptation, params))
        gradient = jax.jit(
            jax.grad(lambda trained: _class_losses(adaptation, join(trained, frozen)).mean())
        )(trained)
        assert _paths(gradient) == _trained(adaptation) | {"classifier/kernel", "classifier/bias"}
        for path, leaf in flatten_dict(gradient).items():
            # The same shift of all keys leaves a softmax as it is.
            shifts_keys = path[-2:] in (("k_proj", "bias"), ("ssf_k_proj", "shift"))
            assert (np.abs(np.asarray(leaf)).max() > 1e-6) != shifts_keys, path

    @pytest.mark.parametrize("kinds", [("adaptformer",), ("partial", "bias"), ("full",)])
    def test_is_undone_by_join(self, kinds):
        params = _moved(_shapes(_of(*kinds)))
        trained, frozen = split(params, trainable(_of(*kinds), params))
        assert not _paths(trained) & _paths(frozen)
        same = jax.tree.map(lambda a, b: a is b, join(trained, frozen), params)
        assert all(jax.tree.leaves(same))

    def test_optimizer_and_perturbation_know_what_trains_alone(self):
        """A step moves what trains along the gradient of the perturbed loss, and nothing else."""
        adaptation = _of("adaptformer")
        params = _moved(_shapes(adaptation))
        mask = trainable(adaptation, params)
        trained, frozen = split(params, mask)
        optimizer = optax.chain(jaxlt.sam(0.1), optax.sgd(0.1, momentum=0.9))
        state = optimizer.init(trained)
        class_losses_fn = lambda trained: _class_losses(adaptation, join(trained, frozen))  # noqa: E731
        gradient_of = jax.jit(jax.grad(lambda trained: class_losses_fn(trained).mean()))
        gradient = gradient_of(trained)
        updates, state = jax.jit(partial(optimizer.update, class_losses_fn=class_losses_fn))(
            gradient, state, trained
        )

        assert _paths(optax.tree_utils.tree_get(state, "trace")) == _paths(trained)
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
        perturbed = jax.tree.map(lambda w, g: w + 0.1 * g / norm, trained, gradient)
        expected = jax.tree.map(lambda g: -0.1 * g, gradient_of(perturbed))
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), updates, expected)


class TestChoice:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"kinds": ()}, "adaptation must be some of adaptformer, .* at most once, got \\(\\)"),
            ({"kinds": ("adaptor",)}, "adaptation must be some of"),
            ({"kinds": ("lora", "lora")}, "at most once"),
            ({"kinds": ("full", "lora")}, "adaptation must be full alone, got"),
            ({"kinds": ("bias", "full")}, "adaptation must be full alone, got"),
            ({"kinds": ("linear_probe", "bias")}, "adaptation must be linear_probe alone"),
            ({"kinds": ("vpt_deep", "vpt_shallow")}, "vpt_shallow or vpt_deep, not both"),
            ({"rank": 0}, "adaptation_rank must be at least 1, got 0"),
            (
                {"kinds": ("ssf",), "rank": 4},
                "adaptation_rank must be None without one of",
            ),
            ({"kinds": ("lora",), "lora_projections": ()}, "lora_projections must be some of"),
            ({"lora_projections": ("qkv",)}, "lora_projections must be some of"),
            ({"prompt_length": 0}, "prompt_length must be at least 1"),
            ({"last_blocks": 0}, "last_blocks must be at least 1"),
        ],
    )
    def test_a_mistake_is_told_in_one_line(self, fields, message):
        with pytest.raises(UsageError, match=message) as error:
            EncoderAdaptation(**fields)
        assert "\n" not in str(error.value)

    def test_default_is_lifts(self):
        default = EncoderAdaptation()
        assert default.kinds == ("adaptformer",)
        assert default.lora_projections == ("q_proj", "v_proj")
        assert default.prompt_length == 10

    @pytest.mark.parametrize(
        "module", [Adapter(2, scaled=True), Adapter(2), LowRank(2, 8), ScaleShift()]
    )
    def test_modules_keep_half_precision(self, module):
        x = jnp.ones((2, 8), jnp.bfloat16)
        variables = module.init(jax.random.key(0), x)
        assert module.apply(variables, x).dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
