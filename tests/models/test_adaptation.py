import dataclasses
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlt
from jaxlt.errors import UsageError
from jaxlt.models import ImageClassifier, LayerNorm
from jaxlt.models.adaptation import Adaptation, bottleneck_rank, join, split, trainable
from jaxlt.models.adaptation_modules import (
    AdaptFormer,
    Adapter,
    LowRank,
    Prompts,
    ScaleShift,
    adapted,
    adapted_mlp,
    prompted,
)

WIDTH, HIDDEN, BLOCKS, CLASSES, PATCH = 8, 20, 3, 5, 4
TOKENS = 5  # four patches and the class token
ADDING = ("adaptformer", "adapter", "lora", "vpt_shallow", "vpt_deep", "ssf")
EXACT_AT_FIRST = ("adaptformer", "adapter", "lora")


class Attention(nn.Module):
    adaptation: Adaptation

    @nn.compact
    def __call__(self, x):
        project = lambda name, x: adapted(  # noqa: E731
            self.adaptation, name, x, nn.Dense(x.shape[-1], name=name)(x)
        )
        query, key, value = (project(name, x) for name in ("q_proj", "k_proj", "v_proj"))
        weights = jax.nn.softmax(query @ key.swapaxes(1, 2) * x.shape[-1] ** -0.5)
        return project("out_proj", weights @ value)


class Mlp(nn.Module):
    adaptation: Adaptation

    @nn.compact
    def __call__(self, x):
        y = adapted(self.adaptation, "fc1", x, nn.Dense(HIDDEN, name="fc1")(x))
        y = nn.gelu(y)
        return adapted(self.adaptation, "fc2", y, nn.Dense(x.shape[-1], name="fc2")(y))


class Block(nn.Module):
    adaptation: Adaptation

    @nn.compact
    def __call__(self, x):
        y = adapted(self.adaptation, "ln1", x, LayerNorm(name="ln1")(x))
        x = x + Attention(self.adaptation, name="attention")(y)
        y = adapted(self.adaptation, "ln2", x, LayerNorm(name="ln2")(x))
        return x + adapted_mlp(self.adaptation, x, Mlp(self.adaptation, name="mlp")(y))


class Transformer(ImageClassifier, kw_only=True):
    """CLIP's image tower in small: class token, layer norms before and after the blocks."""

    adaptation: Adaptation

    @nn.compact
    def features(self, images, *, train):
        del train
        x = nn.Conv(WIDTH, (PATCH, PATCH), strides=PATCH, use_bias=False, name="patches")(images)
        x = x.reshape(len(x), -1, WIDTH)
        token = self.param("class_token", nn.initializers.normal(1.0), (WIDTH,))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, WIDTH)), x], axis=1)
        x = LayerNorm(name="ln_pre")(x)
        for number in range(BLOCKS):
            x = prompted(self.adaptation, x, block=number, tokens=TOKENS, patch=PATCH)
            x = Block(self.adaptation, name=f"block{number}")(x)
        return LayerNorm(name="ln_post")(x[:, 0])


FROZEN = Adaptation(("linear_probe",))
IMAGES = np.random.default_rng(1).normal(size=(6, 8, 8, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 0])


def _model(adaptation) -> Any:
    return Transformer(num_classes=CLASSES, adaptation=adaptation)


def _of(*kinds, **fields) -> Adaptation:
    return Adaptation(kinds, **fields).with_rank(100, BLOCKS)


@cache
def _params(adaptation) -> Any:
    """As a checkpoint would give them: drawn, then the network's own by those of one network."""
    model = _model(adaptation)
    drawn = jax.jit(lambda key: model.init(key, IMAGES[:1], train=False))(jax.random.key(0))
    if adaptation == FROZEN:
        return drawn["params"]
    return join(drawn["params"], _params(FROZEN))


def _moved(params) -> Any:
    """Every leaf away from its start at 0 or 1."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape), params)


def _logits(adaptation, params) -> Any:
    return _model(adaptation).apply({"params": params}, IMAGES, train=False)


def _paths(tree) -> set[str]:
    return {"/".join(path) for path, chosen in flatten_dict(tree).items() if chosen is not False}


def _trained(adaptation) -> set[str]:
    mask = trainable(adaptation, _params(adaptation))
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
        assert Adaptation(rank=3).with_rank(1000, 12).rank == 3
        assert Adaptation().with_rank(1000, 12).rank == 32
        assert FROZEN.with_rank(1000, 12) == FROZEN

    def test_must_be_set_before_the_network_is_built(self):
        with pytest.raises(ValueError, match="with_rank"):
            _params(Adaptation())


class TestCounts:
    @pytest.mark.parametrize(("classes", "count"), [(100, 8453), (1000, 51_489)])
    def test_of_a_block_of_vit_b_with_adaptformer(self, classes, count):
        adaptation = Adaptation().with_rank(classes, 12)
        added = adaptation.added_parameters(width=768, hidden=3072, num_blocks=12)
        assert added == {"adaptformer": 12 * count}
        block = jax.eval_shape(
            AdaptFormer(adaptation.set_rank).init, jax.random.key(0), jnp.zeros((1, 768))
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
        added = adaptation.added_parameters(width=WIDTH, hidden=HIDDEN, num_blocks=BLOCKS)
        count = lambda params: sum(leaf.size for leaf in jax.tree.leaves(params))  # noqa: E731
        assert sum(added.values()) == count(_params(adaptation)) - count(_params(FROZEN))
        assert set(added) == set(adaptation.kinds) & set(ADDING)


class TestInitialFunction:
    @pytest.mark.parametrize("kinds", [*((kind,) for kind in EXACT_AT_FIRST), EXACT_AT_FIRST])
    def test_is_that_of_the_frozen_network(self, kinds):
        adaptation = _of(*kinds)
        params = _params(adaptation)
        frozen = _logits(FROZEN, _params(FROZEN))
        np.testing.assert_allclose(_logits(adaptation, params), frozen, atol=1e-6)
        assert np.abs(_logits(adaptation, _moved_added(adaptation)) - frozen).max() > 0.01

    def test_is_nearly_that_of_the_frozen_network_with_ssf(self):
        adaptation = _of("ssf")
        frozen = _logits(FROZEN, _params(FROZEN))
        change = np.abs(_logits(adaptation, _params(adaptation)) - frozen)
        assert 1e-4 < change.max() < 0.2 * np.std(frozen)

    @pytest.mark.parametrize("kind", ["bias", "layer_norm", "partial", "full", "linear_probe"])
    def test_is_untouched_where_nothing_is_added(self, kind):
        assert _paths(_params(_of(kind))) == _paths(_params(FROZEN))


def _moved_added(adaptation) -> Any:
    added = dataclasses.replace(adaptation, rank=adaptation.rank)
    trained, frozen = split(_params(added), trainable(added, _params(added)))
    head = {"classifier": trained.pop("classifier")}
    return join(join(_moved(trained), head), frozen)


class TestBottlenecks:
    def test_adaptformer_by_hand(self):
        self._check(AdaptFormer(3), scaled=True)

    def test_adapter_by_hand(self):
        self._check(Adapter(3), scaled=False)

    def _check(self, module, *, scaled):
        x = 4 * np.random.default_rng(0).normal(size=(2, 5, WIDTH)) + 1
        params = _moved(module.init(jax.random.key(0), x)["params"])
        y = module.apply({"params": params}, x)
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        normal = normal * params["norm"]["scale"] + params["norm"]["bias"]
        units = np.maximum(normal @ params["down"]["kernel"] + params["down"]["bias"], 0)
        expected = units @ params["up"]["kernel"] + params["up"]["bias"]
        factor = params["scale"] if scaled else 1
        assert ("scale" in params) == scaled
        np.testing.assert_allclose(y, factor * expected, atol=1e-5)

    @pytest.mark.parametrize("module", [AdaptFormer(64), Adapter(64)])
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
        stream, y = (np.random.default_rng(n).normal(size=(2, WIDTH)) for n in (0, 1))
        for kind, module, seen in (
            ("adaptformer", AdaptFormer(2), stream),
            ("adapter", Adapter(2), y),
        ):
            params = _moved(module.init(jax.random.key(0), y)["params"])
            result = _Holder(_of(kind, rank=2)).apply({"params": {kind: params}}, stream, y)
            np.testing.assert_allclose(
                result, y + module.apply({"params": params}, seen), atol=1e-6
            )


class _Holder(nn.Module):
    adaptation: Adaptation

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
        np.testing.assert_allclose(y, x @ ((a @ b) / rank), atol=1e-5)

    def test_start(self):
        params = LowRank(4, 30).init(jax.random.key(0), jnp.zeros((1, 768)))["params"]
        a = np.asarray(params["A"])
        # kaiming_uniform_ with a = sqrt(5), whose bound is 1 / sqrt(fan), the fan that of the rank.
        assert 0.499 < np.abs(a).max() <= 0.5
        assert a.mean() == pytest.approx(0, abs=0.02)
        assert a.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.02)
        assert not params["B"].any()

    @pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"])
    def test_in_the_network_equals_the_product_merged_into_the_kernel(self, projection):
        adaptation = _of("lora", lora_projections=(projection,))
        params = _moved_added(adaptation)
        merged = jax.tree.map(np.array, split(params, trainable(adaptation, params))[1])
        merged["classifier"] = params["classifier"]
        for number in range(BLOCKS):
            module = "mlp" if projection.startswith("fc") else "attention"
            lora = params[f"block{number}"][module][f"lora_{projection}"]
            kernel = merged[f"block{number}"][module][projection]["kernel"]
            kernel += np.asarray(lora["A"] @ lora["B"]) / adaptation.set_rank
        np.testing.assert_allclose(
            _logits(adaptation, params), _logits(FROZEN, merged), atol=1e-4, rtol=1e-4
        )


class TestScaleShift:
    def test_start(self):
        params = ScaleShift().init(jax.random.key(0), jnp.zeros((1, 20_000)))["params"]
        for name, mean in (("scale", 1), ("shift", 0)):
            assert params[name].mean() == pytest.approx(mean, abs=0.001)
            assert params[name].std() == pytest.approx(0.02, rel=0.03)
        assert not np.allclose(params["scale"] - 1, params["shift"])

    def test_by_hand_in_a_block(self):
        """After every operation, and after LoRA."""
        adaptation = _of("ssf", "lora")
        params = _params(adaptation)["block0"]
        places = {
            name for module in (params, params["attention"], params["mlp"]) for name in module
        }
        assert {name for name in places if name.startswith("ssf_")} == {
            f"ssf_{name}"
            for name in ("ln1", "q_proj", "k_proj", "v_proj", "out_proj", "ln2", "fc1", "fc2")
        }

        class Operation(nn.Module):
            @nn.compact
            def __call__(self, x, y):
                return adapted(adaptation, "q_proj", x, y)

        x, y = (np.random.default_rng(n).normal(size=(2, WIDTH)) for n in (0, 1))
        moved = _moved(Operation().init(jax.random.key(0), x, y)["params"])
        lora, ssf = moved["lora_q_proj"], moved["ssf_q_proj"]
        expected = (y + x @ lora["A"] @ lora["B"] / adaptation.set_rank) * ssf["scale"]
        result = Operation().apply({"params": moved}, x, y)
        np.testing.assert_allclose(result, expected + ssf["shift"], atol=1e-5)


class TestPrompts:
    def test_start(self):
        params = Prompts(50, 16).init(jax.random.key(0), jnp.zeros((1, 3, 768)), 3)["params"]
        prompts, bound = np.asarray(params["prompts"]), np.sqrt(6 / (3 * 16 * 16 + 768))
        assert prompts.shape == (50, 768)
        assert 0.999 * bound < np.abs(prompts).max() <= bound
        assert prompts.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)

    def test_come_after_the_images_tokens_in_place_of_earlier_ones(self):
        x = np.random.default_rng(0).normal(size=(2, 7, WIDTH))
        prompts = np.random.default_rng(1).normal(size=(4, WIDTH))
        y = Prompts(4, PATCH).apply({"params": {"prompts": prompts}}, x, 3)
        np.testing.assert_allclose(y, [[*image[:3], *prompts] for image in x], rtol=1e-6)

    @pytest.mark.parametrize(("kind", "blocks"), [("vpt_shallow", 1), ("vpt_deep", BLOCKS)])
    def test_are_those_of_the_blocks_that_have_some(self, kind, blocks):
        names = {f"prompts{number}" for number in range(blocks)}
        assert {name for name in _params(_of(kind)) if name.startswith("prompts")} == names
        assert _trained(_of(kind)) == {f"{name}/prompts" for name in names}


class TestTrainable:
    def test_with_a_linear_probe_is_the_classifier_alone(self):
        mask = trainable(FROZEN, _params(FROZEN))
        assert _paths(mask) == {"classifier/kernel", "classifier/bias"}

    def test_all_with_full(self):
        assert all(jax.tree.leaves(trainable(_of("full"), _params(_of("full")))))

    @pytest.mark.parametrize("kinds", [("bias",), ("layer_norm",), ("bias", "layer_norm")])
    def test_biases_and_layer_norms_of_the_blocks(self, kinds):
        in_block = {
            "bias": "ln1/bias ln2/bias attention/q_proj/bias attention/k_proj/bias "
            "attention/v_proj/bias attention/out_proj/bias mlp/fc1/bias mlp/fc2/bias",
            "layer_norm": "ln1/scale ln1/bias ln2/scale ln2/bias",
        }
        assert _trained(_of(*kinds)) == {
            f"block{number}/{name}"
            for number in range(BLOCKS)
            for kind in kinds
            for name in in_block[kind].split()
        }

    @pytest.mark.parametrize("last", [1, 2, 3])
    def test_the_last_blocks_with_partial(self, last):
        blocks = {f"block{number}" for number in range(BLOCKS - last, BLOCKS)}
        paths = _paths(_params(FROZEN))
        assert _trained(_of("partial", last_blocks=last)) == {
            name for name in paths if name.split("/")[0] in blocks
        }

    def test_blocks_are_ordered_by_number(self):
        params = {f"block{number}": {"fc1": {"bias": number}} for number in range(12)}
        mask = trainable(_of("partial", last_blocks=2), params)
        assert _paths(mask) == {"block10/fc1/bias", "block11/fc1/bias"}

    @pytest.mark.parametrize("kind", ADDING)
    def test_what_was_added(self, kind):
        adaptation = _of(kind)
        assert _trained(adaptation) == _paths(_params(adaptation)) - _paths(_params(FROZEN))

    def test_is_the_union_of_the_kinds(self):
        together = _of("adaptformer", "lora", "vpt_deep", "layer_norm", "partial")
        expected = set().union(*(_trained(_of(kind)) for kind in together.kinds))
        added_to_last = {name for name in _trained(together) - expected}
        assert expected <= _trained(together)
        assert not added_to_last

    @pytest.mark.parametrize(
        ("adaptation", "message"),
        [
            (_of("adaptformer"), "adaptation adaptformer must find its parameters in the network"),
            (_of("vpt_deep"), "adaptation vpt_deep must find"),
            (_of("partial", last_blocks=4), "at most the network's 3 blocks, got 4"),
        ],
    )
    def test_a_network_without_it_is_refused(self, adaptation, message):
        with pytest.raises(UsageError, match=message):
            trainable(adaptation, _params(FROZEN))

    def test_a_network_without_blocks_is_refused(self):
        params = {"layer1_0": {"conv1": {"kernel": 1}}, "classifier": {"bias": 1}}
        for kind in ("bias", "layer_norm", "partial"):
            with pytest.raises(UsageError, match="must"):
                trainable(_of(kind), params)


class TestSplit:
    @pytest.mark.parametrize(
        "kinds",
        [
            *((kind,) for kind in (*ADDING, "bias", "layer_norm", "partial", "linear_probe")),
            ("adaptformer", "vpt_shallow", "layer_norm"),
        ],
    )
    def test_gradients_reach_what_trains_and_nothing_else(self, kinds):
        adaptation = _of(*kinds)
        params = _moved(_params(adaptation))
        mask = trainable(adaptation, params)
        trained, frozen = split(params, mask)

        def loss(trained):
            logits = _logits(adaptation, join(trained, frozen))
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

        gradient = flatten_dict(jax.jit(jax.grad(loss))(trained))
        everywhere = flatten_dict(
            jax.jit(jax.grad(lambda params: loss(split(params, mask)[0])))(params)
        )
        assert {path for path, chosen in flatten_dict(mask).items() if chosen} == set(gradient)
        for path, leaf in gradient.items():
            # The same shift of all keys leaves a softmax as it is.
            shifts_keys = path[-2:] in (("k_proj", "bias"), ("ssf_k_proj", "shift"))
            assert (np.abs(leaf).max() > 1e-6) != shifts_keys, path
            np.testing.assert_allclose(leaf, everywhere[path], atol=1e-6)

    @pytest.mark.parametrize("kinds", [("adaptformer",), ("partial", "bias"), ("full",)])
    def test_is_undone_by_join(self, kinds):
        params = _params(_of(*kinds))
        trained, frozen = split(params, trainable(_of(*kinds), params))
        assert not _paths(trained) & _paths(frozen)
        chex_equal = jax.tree.map(lambda a, b: a is b, join(trained, frozen), params)
        assert all(jax.tree.leaves(chex_equal))

    def test_optimizer_and_perturbation_know_what_trains_alone(self):
        adaptation = _of("adaptformer")
        params = _moved(_params(adaptation))
        trained, frozen = split(params, trainable(adaptation, params))
        counts = (2, 1, 1, 1, 1)
        method = jaxlt.focal_sam(counts, rho=0.1)
        optimizer = optax.chain(method, optax.sgd(0.1, momentum=0.9))
        state = optimizer.init(trained)

        def class_losses_fn(trained):
            logits = _logits(adaptation, join(trained, frozen))
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, LABELS)
            return jaxlt.class_losses(losses, LABELS, CLASSES)

        gradient = jax.grad(lambda w: class_losses_fn(w).mean())(trained)
        updates, state = optimizer.update(gradient, state, trained, class_losses_fn=class_losses_fn)
        momentum = optax.tree_utils.tree_get(state, "trace")
        assert _paths(momentum) == _paths(updates) == _paths(trained)


class TestChoice:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"kinds": ()}, "kinds must be some of adaptformer, .* at most once, got \\(\\)"),
            ({"kinds": ("adaptor",)}, "kinds must be some of"),
            ({"kinds": ("lora", "lora")}, "at most once"),
            ({"kinds": ("full", "lora")}, "kinds must be full alone, got"),
            ({"kinds": ("bias", "full")}, "kinds must be full alone, got"),
            ({"kinds": ("linear_probe", "bias")}, "kinds must be linear_probe alone"),
            ({"kinds": ("vpt_deep", "vpt_shallow")}, "vpt_shallow or vpt_deep, not both"),
            ({"rank": 0}, "rank must be at least 1, got 0"),
            ({"kinds": ("ssf",), "rank": 4}, "rank must be unset without adaptformer or adapter"),
            ({"kinds": ("lora",), "lora_projections": ()}, "lora_projections must be some of"),
            ({"lora_projections": ("qkv",)}, "lora_projections must be some of"),
            ({"prompt_length": 0}, "prompt_length must be at least 1"),
            ({"last_blocks": 0}, "last_blocks must be at least 1"),
        ],
    )
    def test_a_mistake_is_told_in_one_line(self, fields, message):
        with pytest.raises(UsageError, match=message) as error:
            Adaptation(**fields)
        assert "\n" not in str(error.value)

    def test_default_is_lifts(self):
        default = Adaptation()
        assert default.kinds == ("adaptformer",)
        assert default.lora_projections == ("q_proj", "v_proj")
        assert default.prompt_length == 10

    @pytest.mark.parametrize("module", [AdaptFormer(2), Adapter(2), LowRank(2, 8), ScaleShift()])
    def test_modules_keep_half_precision(self, module):
        x = jnp.ones((2, 8), jnp.bfloat16)
        variables = module.init(jax.random.key(0), x)
        assert module.apply(variables, x).dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
