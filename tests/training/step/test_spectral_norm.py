import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy.sparse.linalg import svds

from jaxlt.models import SmallConvNet
from jaxlt.training.step.spectral_norm import SpectralNorm

SHAPES = {"conv": (3, 3, 4, 6), "dense": (20, 7), "classifier": (7, 5)}


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": rng.normal(0, 3, shape).astype(np.float32),
            "bias": rng.normal(size=shape[-1:]).astype(np.float32),
        }
        for name, shape in SHAPES.items()
    }


def converged(norm, params, steps=300):
    return jax.lax.fori_loop(0, steps, lambda _, u: norm.advance(params, u), norm.init(params))


def matrix(params, name):
    return np.asarray(params[name]["kernel"], np.float64).reshape(-1, SHAPES[name][-1])


def test_kernels_come_to_have_singular_values_up_to_one():
    params, norm = parameters(), SpectralNorm()
    vectors = converged(norm, params)
    normalized = norm(params, vectors)
    for name in SHAPES:
        (largest,) = np.asarray(svds(matrix(params, name), k=1, return_singular_vectors=False))
        np.testing.assert_allclose(
            matrix(normalized, name), matrix(params, name) / largest, rtol=1e-4
        )
        left, values, _ = np.linalg.svd(matrix(normalized, name))
        assert values[0] == pytest.approx(1, abs=1e-4)
        assert abs(left[:, 0] @ vectors[name]["kernel"]) == pytest.approx(1, abs=1e-4)
        np.testing.assert_array_equal(normalized[name]["bias"], params[name]["bias"])
        assert normalized[name]["kernel"].shape == SHAPES[name]


def test_several_iterations_at_once_are_as_many_single_ones():
    params = parameters()
    one, three = SpectralNorm(), SpectralNorm(iterations=3)
    start = one.init(params)
    jax.tree.map(np.testing.assert_array_equal, start, three.init(params))
    single = start
    for _ in range(3):
        single = one.advance(params, single)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        three.advance(params, start),
        single,
    )
    assert np.abs(single["dense"]["kernel"] - start["dense"]["kernel"]).max() > 0.01


def test_estimate_stays_below_the_largest_singular_value_and_rises():
    params, norm = parameters(), SpectralNorm()
    vectors, before = norm.init(params), 0.0
    largest = np.linalg.norm(matrix(params, "dense"), 2)
    for _ in range(10):
        scaled = norm(params, vectors)["dense"]["kernel"]
        sigma = params["dense"]["kernel"][0, 0] / float(scaled[0, 0])
        assert before * (1 - 1e-5) <= sigma <= largest * (1 + 1e-5)
        before, vectors = sigma, norm.advance(params, vectors)


def test_scope_of_the_classifier_leaves_the_backbone_alone():
    params, norm = parameters(), SpectralNorm(scope="classifier")
    vectors = norm.init(params)
    assert set(flatten_dict(vectors)) == {("classifier", "kernel")}
    normalized = norm(params, norm.advance(params, vectors))
    for name in ("conv", "dense"):
        jax.tree.map(np.testing.assert_array_equal, normalized[name], params[name])
    assert np.abs(normalized["classifier"]["kernel"] - params["classifier"]["kernel"]).max() > 0.1


def test_vectors_are_unit_and_differ_from_kernel_to_kernel():
    params = parameters()
    params["dense"]["kernel"] = np.ones((7, 20), np.float32)
    vectors = SpectralNorm().init(params)
    for vector in jax.tree.leaves(vectors):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert np.abs(vectors["dense"]["kernel"] - vectors["classifier"]["kernel"]).max() > 0.1


@pytest.mark.usefixtures("x64")
class TestGradient:
    def test_gradient_is_that_of_frozen_vectors(self):
        """Central differences of W / (u^T W v) with u and v held where W was."""
        rng = np.random.default_rng(1)
        W, weights = rng.normal(size=(2, 6, 4))
        norm = SpectralNorm()
        vectors = norm.advance({"kernel": W}, norm.init({"kernel": W}))
        u = np.asarray(vectors["kernel"])
        v = u @ W / np.linalg.norm(u @ W)

        def loss(W):
            return (np.sin(W / (u @ W @ v)) * weights).sum()

        def loss_of_norm(W):
            return (jnp.sin(norm({"kernel": W}, vectors)["kernel"]) * weights).sum()

        gradient = jax.grad(loss_of_norm)(jnp.asarray(W))
        for index in np.ndindex(W.shape):
            step = np.zeros_like(W)
            step[index] = 1e-6
            slope = (loss(W + step) - loss(W - step)) / 2e-6
            assert gradient[index] == pytest.approx(slope, abs=1e-7)

    def test_no_gradient_flows_through_the_iterations(self):
        W, norm = np.random.default_rng(2).normal(size=(6, 4)), SpectralNorm()
        start = norm.init({"kernel": W})
        gradient = jax.grad(lambda W: norm.advance({"kernel": W}, start)["kernel"].sum())(W)
        assert not np.any(gradient)


def test_zero_kernels_stay_zero_and_their_vectors_wait():
    params, norm = {"kernel": jnp.zeros((6, 4))}, SpectralNorm()
    start = norm.init(params)
    vectors = norm.advance(params, start)
    np.testing.assert_array_equal(vectors["kernel"], start["kernel"])
    assert not np.any(norm(params, vectors)["kernel"])
    gradient = jax.grad(lambda params: norm(params, vectors)["kernel"].sum())(params)
    assert np.isfinite(gradient["kernel"]).all()


def test_normalizes_every_kernel_of_a_network():
    model = SmallConvNet(num_classes=3, patch=2)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    norm, params = SpectralNorm(), variables["params"]
    vectors = jax.jit(lambda params: converged(norm, params, 100))(params)
    normalized = jax.jit(norm)(params, vectors)
    kernels = {
        path: leaf for path, leaf in flatten_dict(normalized).items() if path[-1] == "kernel"
    }
    assert set(kernels) == set(flatten_dict(vectors))
    assert len(kernels) == 4
    for kernel in map(np.asarray, kernels.values()):
        assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(1, abs=0.01)
    logits = model.apply({**variables, "params": normalized}, images, train=False)
    assert np.isfinite(np.asarray(logits)).all()


@pytest.mark.parametrize("fields", [{"scope": "head"}, {"iterations": 0}])
def test_other_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        SpectralNorm(**fields)
