"""CC-SAM on a classifier in closed form, against the loop over classes."""

import itertools
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import soak_but
from small_problems import (
    CLASSIFIER,
    COUNTS,
    METHODS,
    NUM_BATCHES,
    NUM_CLASSES,
    assert_close,
    batch,
    changed_update,
    factored,
    features,
    initial_params,
    largest_difference,
)

import jaxlt
from jaxlt import losses
from jaxlt.sharpness.closed_form import has_closed_form, theta_moves_features
from jaxlt.sharpness.perturbation import PerturbationRule, Scope

LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "focal": lambda x, y: losses.focal(x, y, 2.0),
    "ldam": lambda x, y: losses.ldam(x, y, COUNTS),
    "logit_adjusted": lambda x, y: losses.logit_adjusted(x, y, COUNTS, 1.5),
    "balanced_softmax": lambda x, y: losses.balanced_softmax(x, y, COUNTS),
    "vector_scaling": lambda x, y: losses.vector_scaling(x, y, COUNTS, 0.3, 1.0),
    "re-weighted": lambda x, y: (
        losses.class_balanced_weights(COUNTS)[y] * losses.cross_entropy(x, y)
    ),
}
OPTIONS = {
    "paper": {"max_relative_radius": None},
    "bounded": {"max_relative_radius": 0.05, "flat_ratio": 1.0},
    "released": {"grad_norm": "per_leaf", "max_relative_radius": None, "flat_ratio": 0.3},
    "direction only": {"magnitude": "constant", "radius_scale": 0.1},
    "direction only by leaf": {"magnitude": "constant", "grad_norm": "per_leaf"},
    "by class": {"class_weighting": "class"},
    "both": {"grad_norm": "per_leaf", "class_weighting": "class", "max_relative_radius": 0.1},
}
BOTH = ["linear", "cosine"]


def classifier_of(name):
    if name == "linear":
        return factored(*batch(2)).classifier_fn
    return lambda p: jaxlt.Cosine(p["classifier.kernel"])


def problem(classifier, dtype=float):
    params = initial_params(dtype)
    if classifier == "cosine":
        del params["classifier.bias"]
    return params


def both_ways(params, obj, **arguments):
    """First update of CC-SAM with the object, and with a plain function that hides it."""
    tx = METHODS["cc_sam"](**{"radius_scale": 0.3, "mask": is_classifier} | arguments)
    return changed_update(tx, obj, params), changed_update(tx, lambda p: obj(p), params)


# With each, whether it has a closed form where the leaves named classifier alone are perturbed.
CLASSIFIERS = {
    "without bias": (lambda p: jaxlt.Linear(p["classifier.kernel"]), True),
    "constant bias": (lambda p: jaxlt.Linear(p["classifier.kernel"], np.ones(NUM_CLASSES)), True),
    "frozen bias": (lambda p: jaxlt.Linear(p["classifier.kernel"], 2 * p["scale"]), True),
    "Python factor": (lambda p: jaxlt.Linear(2 * p["classifier.kernel"], p["scale"]), False),
    "learned scale": (
        lambda p: jaxlt.Linear(p["classifier.kernel"] * p["scale"][None], p["scale"]),
        False,
    ),
    "weight norm": (
        lambda p: jaxlt.Linear(
            p["classifier.kernel"] / jnp.linalg.norm(p["classifier.kernel"], axis=0)[None]
        ),
        False,
    ),
    "transposed": (lambda p: jaxlt.Linear(p["classifier.kernel"].T[:, ::-1].T), False),
    "cast": (lambda p: jaxlt.Linear(p["classifier.kernel"].astype(jnp.float32)), False),
    "bias of the kernel": (
        lambda p: jaxlt.Linear(p["classifier.kernel"], p["classifier.kernel"].sum(0)),
        False,
    ),
    "cosine, scaled": (lambda p: jaxlt.Cosine(3 * p["classifier.kernel"], 5.0), False),
}


def derived_problem():
    params = initial_params()
    del params["classifier.bias"]
    return params | {"scale": jnp.linspace(0.5, 2.0, NUM_CLASSES)}


def is_classifier(params):
    return {name: name.startswith("classifier") for name in params}


def tied(params, x):
    return features(params, x) * params["classifier.kernel"].sum(1)[None]


# With each, whether it reads the classifier.
FEATURES = {
    "tied": (tied, True),
    "tied by a constant": (
        lambda p, x: features(p, x) + jax.lax.stop_gradient(p["classifier.bias"]).sum(),
        True,
    ),
    "of all leaves cast": (
        lambda p, x: jax.checkpoint(jax.jit(features))(jax.tree.map(lambda w: 2 * w, p), x),
        False,
    ),
}


@pytest.mark.usefixtures("x64")
class TestExactness:
    @pytest.mark.parametrize(
        ("classifier", "loss", "options"),
        soak_but(
            {
                *((c, "cross_entropy", o) for c, o in zip(BOTH * 4, OPTIONS, strict=False)),
                *((c, loss, "bounded") for c, loss in zip(BOTH * 4, LOSSES, strict=False)),
            },
            [
                *((c, loss, "bounded") for c in BOTH for loss in LOSSES),
                *((c, "cross_entropy", o) for c in BOTH for o in OPTIONS),
            ],
        ),
    )
    def test_of_gradient_and_measurements(self, classifier, loss, options):
        x, y = batch(2)
        fields = {"classifier_fn": classifier_of(classifier), "loss_fn": LOSSES[loss]}
        ours, theirs = both_ways(problem(classifier), factored(x, y, **fields), **OPTIONS[options])
        assert largest_difference(ours[0], theirs[0]) < 1e-10
        assert_close(ours[1], theirs[1], 1e-6)
        assert (ours[1].perturbation_norm > 0).all()

    @pytest.mark.parametrize("index", soak_but({2, 3}, range(NUM_BATCHES)))
    def test_with_absent_classes_and_padding(self, index):
        x, y = batch(index)
        obj = factored(x, y.at[:3].set(-1))
        ours, theirs = both_ways(problem("linear"), obj)
        assert largest_difference(ours[0], theirs[0]) < 1e-12
        assert_close(ours[1], theirs[1], 1e-6)

    @pytest.mark.parametrize("grad_norm", ["global", "per_leaf"])
    @pytest.mark.parametrize("leaf", CLASSIFIER)
    def test_with_one_leaf_of_the_classifier_perturbed(self, leaf, grad_norm):
        mask = {name: name == leaf for name in initial_params()}
        ours, theirs = both_ways(
            problem("linear"), factored(*batch(2)), mask=mask, grad_norm=grad_norm
        )
        assert largest_difference(ours[0], theirs[0]) < 1e-12

    @pytest.mark.parametrize("name", METHODS)
    def test_every_method_takes_the_object(self, name):
        obj, params = factored(*batch(2)), initial_params()
        ours, theirs = (changed_update(METHODS[name](), f, params) for f in (obj, lambda p: obj(p)))
        assert largest_difference(ours[0], theirs[0]) < 1e-12

    @pytest.mark.parametrize(
        "name",
        soak_but(
            {
                "without bias",
                "frozen bias",
                "Python factor",
                "learned scale",
                "weight norm",
                "bias of the kernel",
            },
            CLASSIFIERS,
        ),
    )
    def test_of_any_classifier(self, name):
        """Those of plain leaves in closed form, those computed from theta by the loop."""
        classifier_fn, in_closed_form = CLASSIFIERS[name]
        obj = factored(*batch(2), classifier_fn=classifier_fn)
        params = derived_problem()
        scope = Scope(params, is_classifier)
        assert has_closed_form(obj, scope, PerturbationRule()) == in_closed_form
        ours, theirs = both_ways(params, obj)
        assert largest_difference(ours[0], theirs[0]) < 1e-12
        assert_close(ours[1], theirs[1], 1e-6)

    @pytest.mark.parametrize("passes", [None, jaxlt.Blocks()])
    @pytest.mark.parametrize("name", FEATURES)
    def test_of_features_that_read_the_classifier_or_do_not(self, name, passes):
        features_fn, reads = FEATURES[name]
        obj, params = factored(*batch(2), passes, features_fn=features_fn), initial_params()
        assert theta_moves_features(obj, Scope(params, is_classifier)) == reads
        ours, theirs = both_ways(params, obj)
        assert largest_difference(ours[0], theirs[0]) < 1e-12
        assert_close(ours[1], theirs[1], 1e-6)

    def test_adaptive_is_left_to_the_loop(self):
        ours, theirs = both_ways(problem("linear"), factored(*batch(2)), adaptive=True)
        assert largest_difference(ours[0], theirs[0]) < 1e-12


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_float32(classifier):
    obj = factored(*batch(2, jnp.float32), classifier_fn=classifier_of(classifier))
    ours, theirs = both_ways(problem(classifier, jnp.float32), obj)
    assert largest_difference(ours[0], theirs[0]) < 1e-5


@pytest.mark.parametrize(
    ("classifier", "scale"),
    soak_but({("linear", 1e-25), ("cosine", 1e25)}, itertools.product(BOTH, [1e-25, 1e25])),
)
def test_gradients_whose_squares_are_out_of_range(classifier, scale):
    x, y = batch(2, jnp.float32)
    params = problem(classifier, jnp.float32)
    tx = METHODS["cc_sam"](magnitude="constant", radius_scale=0.1, mask=is_classifier)

    def of_scaled(scale):
        def loss_fn(logits, labels):
            return scale * losses.cross_entropy(logits, labels)

        obj = factored(x, y, classifier_fn=classifier_of(classifier), loss_fn=loss_fn)
        return changed_update(tx, obj, params)

    (gradient, state), (expected, plain) = of_scaled(scale), of_scaled(1.0)
    assert_close(jax.tree.map(lambda g: g / scale, gradient), expected, 1e-6)
    np.testing.assert_allclose(state.perturbation_norm, plain.perturbation_norm, rtol=1e-5)


@pytest.mark.parametrize(
    ("classifier", "leaf", "of_features"),
    soak_but(
        {("linear", "float32", "bfloat16"), ("cosine", "bfloat16", "bfloat16")},
        [
            (classifier, leaf, of_features)
            for classifier in BOTH
            for leaf, of_features in itertools.product(["float32", "bfloat16"], repeat=2)
        ],
    ),
)
def test_16_bits(classifier, leaf, of_features):
    """Against 32 bits at the same numbers: nothing but the leaf's own gradient is rounded."""

    def of_type(leaf, of_features):
        def features_fn(p, x):
            return features(p, x).astype(jnp.bfloat16).astype(of_features)

        params = problem(classifier, jnp.float32)
        for name in params.keys() & set(CLASSIFIER):
            params[name] = params[name].astype(jnp.bfloat16).astype(leaf)
        fields = {"classifier_fn": classifier_of(classifier), "features_fn": features_fn}
        tx = METHODS["cc_sam"](mask=is_classifier)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "params that are perturbed should have at least 32")
            return changed_update(tx, factored(*batch(2, jnp.float32), **fields), params)

    (ours, state), (theirs, expected) = of_type(leaf, of_features), of_type("float32", "float32")
    assert ours["classifier.kernel"].dtype == leaf
    as_float = jax.tree.map(lambda g: g.astype(jnp.float32), ours)
    assert_close(as_float, theirs, 2e-2)
    np.testing.assert_allclose(state.perturbation_norm, expected.perturbation_norm, rtol=2e-2)


@pytest.mark.parametrize("classifier", BOTH)
@pytest.mark.parametrize("types", [("float32", "float64"), ("float64", "float32")])
@pytest.mark.usefixtures("x64")
def test_features_of_another_type_than_the_leaves(classifier, types):
    leaf, of_features = types
    obj = factored(
        *batch(2),
        features_fn=lambda p, x: features(p, x).astype(of_features),
        classifier_fn=classifier_of(classifier),
    )
    params = problem(classifier)
    params |= {name: params[name].astype(leaf) for name in params.keys() & set(CLASSIFIER)}
    ours, theirs = both_ways(params, obj)
    assert jax.tree.map(jnp.result_type, ours[0]) == jax.tree.map(jnp.result_type, params)
    assert_close(ours, theirs, 1e-5)


def test_a_leaf_without_a_derivative_keeps_the_closed_form():
    """By its cost: the loop over classes has a pass of the whole network for each."""
    params, (x, y) = problem("linear", jnp.float32), batch(2, jnp.float32)
    losses_fn = factored(x, y, features_fn=lambda p, x: features(p, x) + 0 * p["steps"])
    tx = METHODS["cc_sam"](mask=lambda p: {**is_classifier(p), "steps": False})

    def step(params, steps):
        params = {**params, "steps": steps}
        loss, gradient, known = jaxlt.value_and_grad(losses_fn)(params)
        gradient["steps"] = steps
        return tx.update(gradient, tx.init(params), params, value=loss, class_losses_fn=known)

    def flops(steps):
        return jax.jit(step).lower(params, steps).compile().cost_analysis()["flops"]

    found, expected = (jax.jit(step)(params, jnp.array(kind)) for kind in (1, 1.0))
    for gradient, _ in (found, expected):
        del gradient["steps"]
    assert_close(found, expected, 1e-5)
    assert flops(jnp.array(1)) < 1.05 * flops(jnp.array(1.0))


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_class_without_gradient_is_not_perturbed(classifier):
    """Class 1's loss is constant: the formula for its radius is infinite."""
    x, y = batch(2, jnp.float32)

    def loss_fn(logits, labels):
        return jnp.where(labels == 1, 3.0, losses.cross_entropy(logits, labels))

    obj = factored(x, y, classifier_fn=classifier_of(classifier), loss_fn=loss_fn)
    (gradient, state), _ = both_ways(problem(classifier, jnp.float32), obj)
    assert state.perturbation_norm[1] == state.sharpness[1] == 0
    assert (jnp.delete(state.perturbation_norm, 1) > 0).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def largest_array(jaxpr):
    """Number of scalars in the largest array that a program makes, loops and calls included."""
    inner = [
        largest_array(value.jaxpr if hasattr(value, "jaxpr") else value)
        for equation in jaxpr.eqns
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        )
        if hasattr(value, "jaxpr") or hasattr(value, "eqns")
    ]
    made = [math.prod(v.aval.shape) for equation in jaxpr.eqns for v in equation.outvars]
    return max(made + inner)


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
@pytest.mark.parametrize("flat_ratio", [1.0, 0.5])
def test_imagenet_lt_classifier_fits(classifier, flat_ratio):
    num_classes, num_features, num_images = 1000, 2048, 256
    params = {"kernel": jnp.zeros((num_features, num_classes)), "bias": jnp.zeros(num_classes)}
    if classifier == "cosine":
        del params["bias"]
    classifier_fn = {
        "linear": lambda p: jaxlt.Linear(**p),
        "cosine": lambda p: jaxlt.Cosine(**p),
    }[classifier]
    tx = jaxlt.cc_sam(range(1, 1 + num_classes), flat_ratio=flat_ratio)

    def step(params, features, labels):
        obj = jaxlt.FactoredLosses(
            lambda p, z: z, classifier_fn, losses.cross_entropy, features, labels, num_classes
        )
        return tx.update(params, tx.init(params), params, class_losses_fn=obj)

    shapes = (
        jax.eval_shape(lambda: params),
        jax.ShapeDtypeStruct((num_images, num_features), jnp.float32),
        jax.ShapeDtypeStruct((num_images,), jnp.int32),
    )
    largest = largest_array(jax.make_jaxpr(step)(*shapes).jaxpr)
    assert largest == num_features * num_classes


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("passes", [None, jaxlt.Blocks()])
def test_losses_of_16_bits_are_summed_in_32(name, passes):
    def loss_fn(logits, labels):
        return losses.cross_entropy(logits, labels).astype(jnp.bfloat16)

    obj = factored(*batch(2, jnp.float32), passes, loss_fn=loss_fn)
    params = initial_params(jnp.float32)
    ours, theirs = (
        changed_update(METHODS[name](mask=is_classifier), f, params)
        for f in (obj, lambda p: obj(p))
    )
    assert largest_difference(ours[0], theirs[0]) < 1e-5
    np.testing.assert_allclose(ours[1].loss, theirs[1].loss, rtol=1e-6)


def test_loss_of_the_state_is_the_mean():
    obj = factored(*batch(2))
    for result in both_ways(initial_params(), obj):
        np.testing.assert_allclose(result[1].loss, obj(initial_params()).mean(), rtol=1e-6)


def test_perturbations_whose_squares_are_out_of_range_are_measured():
    """Features are large and weights small, so that perturbations are too."""
    images, labels = np.random.default_rng(0).standard_normal((8, 3)), jnp.arange(8) % 2
    params = {"kernel": jnp.array([[1e-10, 2e-10], [0, 1e-10], [-1e-10, 0]])}
    losses = jaxlt.FactoredLosses(
        features_fn=lambda params, images: images,
        classifier_fn=lambda params: jaxlt.Linear(params["kernel"]),
        loss_fn=jaxlt.losses.cross_entropy,
        images=jnp.asarray(images * 1e10, jnp.float32),
        labels=labels,
        num_classes=2,
    )
    tx = jaxlt.cc_sam((5, 5))
    norms = []
    for losses_fn in (losses, lambda params: losses(params)):
        state: Any = tx.update(params, tx.init(params), params, class_losses_fn=losses_fn)[1]
        norms.append(state.perturbation_norm)
    assert (norms[0] > 0).all()
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-4)
