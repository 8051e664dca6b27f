"""What a mixed image is, and what it contributes to which class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt import losses
from jaxlt.training.step.mixup import MixedBatch, mixed_class_losses, mixup


def batch(size=6, num_classes=3):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((size, 2, 2, 1)).astype(np.float32)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, num_classes, size))


def test_each_image_is_mixed_with_a_partner_of_the_batch():
    images, _ = batch()
    # Labels that tell the images apart show who the partner is.
    mixed = mixup(jax.random.key(1), images, jnp.arange(6), alpha=1.0)
    assert sorted(mixed.partners.tolist()) == list(range(6))
    assert mixed.partners.tolist() != list(range(6))
    share = float(mixed.share)
    assert 0 < share < 1
    for i, partner in enumerate(mixed.partners.tolist()):
        expected = share * images[i] + (1 - share) * images[partner]
        np.testing.assert_allclose(mixed.images[i], expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_follow_the_beta_distribution(alpha):
    images, labels = batch()
    keys = jax.random.split(jax.random.key(0), 2000)
    shares = jax.vmap(lambda key: mixup(key, images, labels, alpha).share)(keys)
    assert scipy.stats.kstest(np.asarray(shares), scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 100))
def test_contributions_to_classes_against_a_loop(share, seed):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    labels, partners = rng.integers(0, 3, (2, 5))
    mixed = MixedBatch(jnp.zeros((5, 1, 1, 1)), labels, partners, jnp.float32(share))
    found = mixed_class_losses(lambda y: losses.cross_entropy(logits, y), mixed, 3)

    log_p = np.asarray(jax.nn.log_softmax(logits))
    sums, counts = np.zeros(3), np.zeros(3)
    for i in range(5):
        sums[labels[i]] -= share * log_p[i, labels[i]]
        counts[labels[i]] += share
        sums[partners[i]] -= (1 - share) * log_p[i, partners[i]]
        counts[partners[i]] += 1 - share
    np.testing.assert_allclose(found.sums, sums, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.counts, counts, rtol=1e-5, atol=1e-6)
    # The whole is mixup's loss, and the batch still has five images.
    targets = share * np.eye(3)[labels] + (1 - share) * np.eye(3)[partners]
    np.testing.assert_allclose(found.mean(), -(targets * log_p).sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(found.counts.sum(), 5, rtol=1e-6)
