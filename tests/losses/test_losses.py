"""Per-example losses against golden values and gradients, and at the edges of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import GOLDEN

from jaxlt import losses

_golden = np.load(GOLDEN / "losses.npz")
COUNTS = tuple(_golden["class_counts"].tolist())
# The authors' logit adjustment takes log(pi + 1e-9); counts are free to a common factor.
SHIFTED_COUNTS = tuple(n + 1e-9 * sum(COUNTS) for n in COUNTS)
LABELS = _golden["labels"].astype(np.int32)


def losses_of(counts):
    return {
        "cross_entropy": losses.cross_entropy,
        "focal": lambda x, y: losses.focal(x, y, 0.5),
        "ldam": lambda x, y: losses.ldam(x, y, counts),
        "logit_adjusted": lambda x, y: losses.logit_adjusted(x, y, counts, 1.5),
        "balanced_softmax": lambda x, y: losses.balanced_softmax(x, y, counts),
        "vector_scaling": lambda x, y: losses.vector_scaling(x, y, counts, 0.3, 1.0),
        "gcl": lambda x, y: losses.gcl(x, y, counts, noise(), margin=0.1, focusing=1.0),
        "label_aware_smoothing": lambda x, y: losses.label_aware_smoothing(x, y, counts, 0.4, 0.1),
        "lade": lambda x, y: losses.lade(x, y, counts),
    }


EACH_LOSS = losses_of(COUNTS)


def noise():
    return losses.gcl_noise(jax.random.key(0), (len(LABELS), len(COUNTS)))


def weighted_ldam(logits, labels):
    weights = losses.class_balanced_weights(COUNTS, 0.9999)
    return weights[labels] * losses.ldam(logits, labels, COUNTS)


GOLDEN_LOSSES = [
    ("cross_entropy", losses.cross_entropy),
    ("focal_gamma2", lambda x, y: losses.focal(x, y, 2.0)),
    ("ldam_m0.5_s30", lambda x, y: losses.ldam(x, y, COUNTS, max_margin=0.5, scale=30.0)),
    ("ldam_m0.5_s30_weighted", weighted_ldam),
    (
        "vector_scaling_gamma0.05_tau0.75",
        lambda x, y: losses.vector_scaling(x, y, COUNTS, gamma=0.05, tau=0.75),
    ),
    (
        "vector_scaling_gamma0.3_tau1",
        lambda x, y: losses.vector_scaling(x, y, COUNTS, gamma=0.3, tau=1.0),
    ),
    ("logit_adjusted_tau1", lambda x, y: losses.logit_adjusted(x, y, SHIFTED_COUNTS, tau=1.0)),
    ("logit_adjusted_tau1", lambda x, y: losses.balanced_softmax(x, y, SHIFTED_COUNTS)),
]


@pytest.mark.parametrize(("name", "loss"), GOLDEN_LOSSES)
def test_golden_value_and_gradient(name, loss, precision):
    logits = jnp.asarray(_golden["logits"], precision.dtype)
    value = jax.jit(loss)(logits, LABELS)
    gradient = jax.jit(jax.grad(lambda x: loss(x, LABELS).sum()))(logits)
    assert value.dtype == gradient.dtype == precision.dtype
    for actual, expected in ((value, _golden[name]), (gradient, _golden[f"{name}.grad"])):
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=precision.tolerance * scale)


def test_golden_class_balanced_weights(precision):
    weights = losses.class_balanced_weights(COUNTS, 0.9999)
    expected = _golden["class_balanced_weights_beta0.9999"]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=precision.tolerance)
    np.testing.assert_allclose(weights.sum(), len(COUNTS), rtol=precision.tolerance)


def test_every_golden_loss_is_checked():
    others = {"logits", "labels", "class_counts", "class_balanced_weights_beta0.9999"}
    names = {name.removesuffix(".grad") for name in _golden.files}
    assert names - others == {name for name, _ in GOLDEN_LOSSES}


@pytest.mark.parametrize("name", EACH_LOSS)
class TestEdges:
    @pytest.mark.parametrize("margin", [1e2, 1e4, -1e4])
    def test_saturated_logits_stay_finite(self, name, margin):
        logits = margin * jax.nn.one_hot(LABELS, 10)
        value, gradient = (
            EACH_LOSS[name](logits, LABELS),
            jax.grad(lambda x: EACH_LOSS[name](x, LABELS).sum())(logits),
        )
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()

    def test_padding_costs_nothing(self, name):
        logits = jnp.asarray(_golden["logits"], jnp.float32)
        value, pullback = jax.vjp(lambda x: EACH_LOSS[name](x, jnp.full(32, -1)), logits)
        assert (value == 0).all()
        assert (pullback(jnp.ones(32))[0] == 0).all()

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
    def test_16_bit_logits_are_taken_in_32_bits(self, name, dtype):
        short = jnp.asarray(_golden["logits"], dtype)
        value = EACH_LOSS[name](short, LABELS)
        assert value.dtype == jnp.float32
        exact = EACH_LOSS[name](short.astype(jnp.float32), LABELS)
        np.testing.assert_array_equal(value, exact)

    @pytest.mark.parametrize("x64", [False, True])
    @pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
    def test_nothing_is_promoted(self, name, dtype, x64):
        """Strictness is on here; see `conftest.py`."""
        with jax.enable_x64(x64):
            for labels in (LABELS, jnp.asarray(LABELS, jnp.uint8)):
                logits = jax.ShapeDtypeStruct((32, 10), jax.dtypes.canonicalize_dtype(dtype))
                gradient = jax.grad(lambda x, y=labels: EACH_LOSS[name](x, y).sum())
                assert jax.eval_shape(gradient, logits).dtype == logits.dtype

    def test_counts_are_free_to_a_common_factor(self, name):
        logits = jnp.asarray(_golden["logits"], jnp.float32)
        value = losses_of([n / sum(COUNTS) for n in COUNTS])[name](logits, LABELS)
        np.testing.assert_allclose(value, EACH_LOSS[name](logits, LABELS), rtol=1e-4, atol=1e-5)


def test_focal_with_gamma_0_is_cross_entropy():
    logits = jnp.asarray(_golden["logits"], jnp.float32)
    for loss in (lambda x: losses.focal(x, LABELS, 0.0), lambda x: losses.cross_entropy(x, LABELS)):
        value, pullback = jax.vjp(loss, logits)
        np.testing.assert_allclose(value, _golden["cross_entropy"], atol=1e-5)
        gradient = _golden["cross_entropy.grad"]
        np.testing.assert_allclose(pullback(jnp.ones(32))[0], gradient, atol=1e-5)


def test_ldam_margins():
    """Of equal logits only the margin of the label's class is seen."""
    logits = jnp.zeros((3, 3))
    counts = (625, 81, 16)  # fourth roots 5, 3, 2
    value = losses.ldam(logits, jnp.arange(3), counts, max_margin=0.6, scale=2.0)
    margins = np.array([0.24, 0.4, 0.6])
    np.testing.assert_allclose(value, np.log(2 + np.exp(-2 * margins)) + 2 * margins, rtol=1e-6)


class TestClassBalancedWeights:
    @pytest.mark.usefixtures("x64")
    def test_beta_of_another_type(self):
        weights = jax.jit(lambda beta: losses.class_balanced_weights(COUNTS, beta))
        expected = losses.class_balanced_weights(COUNTS, 0.99)
        np.testing.assert_allclose(weights(jnp.float32(0.99)), expected, rtol=1e-6)

    def test_fractional_counts(self):
        with pytest.raises(
            ValueError, match=r"^class_counts must be positive whole numbers, got 0\."
        ):
            losses.class_balanced_weights((0.9, 0.1))

    def test_equal_for_beta_0(self):
        np.testing.assert_allclose(losses.class_balanced_weights((9, 4, 1), 0.0), 1.0)

    def test_inverse_counts_for_beta_near_1(self):
        weights = losses.class_balanced_weights((400, 20, 1), 1 - 1e-7)
        np.testing.assert_allclose(weights / weights[2], [1 / 400, 1 / 20, 1], rtol=1e-3)

    @pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan")])
    def test_beta_out_of_range(self, beta):
        with pytest.raises(ValueError, match=rf"^beta must lie in \[0, 1\), got {beta}"):
            losses.class_balanced_weights((5, 3), beta)


def test_deferred_reweighting_starts_at_its_step():
    schedule = losses.deferred_reweighting((100, 10), start_step=3, beta=0.99)
    late = losses.class_balanced_weights((100, 10), 0.99)
    assert late[1] > late[0]
    steps = jax.vmap(schedule)(jnp.arange(5))
    np.testing.assert_array_equal(steps, [[1, 1]] * 3 + [late] * 2)


@pytest.mark.parametrize(
    "loss",
    [
        losses.ldam,
        losses.logit_adjusted,
        losses.balanced_softmax,
        losses.lade,
        lambda x, y, counts: losses.gcl(x, y, counts, jnp.zeros((4, 3))),
        lambda x, y, counts: losses.label_aware_smoothing(x, y, counts, 0.4, 0.1),
        lambda x, y, counts: losses.vector_scaling(x, y, counts, 0.1, 1.0),
    ],
)
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((5, 3), "class_counts must hold one count for each of the 3 classes, got 2 counts"),
        ((5, 3, 0), "class_counts must be positive (whole )?numbers, got 0 for class 2"),
    ],
)
def test_bad_class_counts(loss, counts, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(jnp.zeros((4, 3)), jnp.zeros(4, int), counts)
