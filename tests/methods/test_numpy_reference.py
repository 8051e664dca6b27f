"""Every method by every path against equations in NumPy, in cases drawn at random.

A configuration's number draws it, and with a case's number that case: what fails says both.
`pytest -m '' -k '[171]'`, or `check(171)`, computes the cases of configuration 171 again.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as reference
import optax
import pytest
from lanes import soak_but
from numpy_reference import Problem, Scope
from random_cases import Case, Configuration, draw_case, draw_configuration, varied

import jaxlt

CONFIGURATIONS, CASES = 375, 8
FAST = varied(36, range(CONFIGURATIONS))
TOLERANCE = 1e-9  # of the gradient's largest entry
SINGLE = 3e-7  # the state is in float32


@pytest.mark.usefixtures("x64")
class TestNumPyReference:
    @pytest.mark.parametrize("number", soak_but(FAST, range(CONFIGURATIONS)))
    def test_drawn_cases(self, number):
        check(number)


def check(number: int) -> float:
    """Returns the largest error of a configuration's gradients, relative to their largest entry."""
    configuration = draw_configuration(number)
    cases = [draw_case(configuration, np.random.default_rng([number, i])) for i in range(CASES)]
    step = jax.jit(functools.partial(update, configuration))
    if configuration.vmapped:
        found = jax.vmap(step)(jax.tree.map(lambda *x: np.stack(x), *cases))
        results = [jax.tree.map(lambda x, i=i: x[i], found) for i in range(CASES)]
    else:
        results = [step(case) for case in cases]
    return max(
        compare(configuration, case, result, f"configuration {number}, case {i}: {configuration}")
        for i, (case, result) in enumerate(zip(cases, results, strict=True))
    )


def compare(
    configuration: Configuration,
    case: Case,
    result: tuple[dict[str, Any], jaxlt.SharpnessState],
    about: str,
) -> float:
    gradient, state = result
    if tail_has_no_room(configuration, case):
        # An image left out must not pass for one without gradient.
        assert all(np.isnan(leaf).all() for leaf in gradient.values()), about
        return 0.0
    problem = problem_of(configuration, case)
    right = expected(configuration, case, problem)
    assert gradient.keys() == right.gradient.keys(), about
    largest = max(np.abs(leaf).max() for leaf in right.gradient.values())
    error = max(np.abs(leaf - right.gradient[name]).max() for name, leaf in gradient.items())
    assert error <= TOLERANCE * largest, f"{error} of {largest} in {about}"
    close = functools.partial(np.testing.assert_allclose, rtol=SINGLE, err_msg=about)
    close(state.perturbation_norm, right.lengths)
    close(state.sharpness, right.rises, atol=TOLERANCE * case.factors.max())
    close(state.loss, problem.mean(case.params)[0])
    return error / largest if largest else 0.0


def tail_has_no_room(configuration: Configuration, case: Case) -> bool:
    second_stage = configuration.method == "sse_sam" and in_second_stage(configuration, case)
    room = configuration.passes
    if not isinstance(room, int) or not (second_stage or configuration.method == "imb_sam"):
        return False
    tail = np.flatnonzero(case.train_counts < case.numbers["tail_threshold"])
    return bool(np.isin(case.labels, tail).sum() > room)


def in_second_stage(configuration: Configuration, case: Case) -> bool:
    switch = configuration.options["switch_step"]
    return switch is not None and bool(case.count >= switch)


def problem_of(configuration: Configuration, case: Case) -> Problem:
    shares = case.labels
    if not configuration.soft:
        shares = (shares[:, None] == np.arange(configuration.classes)).astype(float)
    return Problem(case.images, shares, case.factors, configuration.scale)


def expected(configuration: Configuration, case: Case, problem: Problem) -> reference.Step:
    options, numbers = dict(configuration.options), dict(case.numbers)
    method, rho = configuration.method, numbers.pop("rho")
    place = (problem, case.params, Scope(configuration.scope, configuration.adaptive))
    if method == "sam":
        return reference.sam(*place, rho)
    if method == "gradient_norm_penalty":
        return reference.gradient_norm_penalty(*place, numbers["penalty"], rho)
    if method == "sse_sam":
        options = {"second_stage": in_second_stage(configuration, case)}
    if method == "cc_sam":
        bounded, all_flat = options.pop("bounded"), options.pop("all_flat")
        del options["chunk_size"]
        numbers["max_relative_radius"] = numbers["max_relative_radius"] if bounded else None
        numbers["flat_ratio"] = 1.0 if all_flat else numbers["flat_ratio"]
    of_classes = getattr(reference, method)
    return of_classes(*place, rho, train_counts=case.train_counts, **numbers, **options)


def update(configuration: Configuration, case: Case) -> tuple[Any, Any]:
    losses_fn = class_losses_fn(configuration, case)
    loss, gradient = jax.value_and_grad(lambda w: losses_fn(w).mean())(case.params)
    method = transformation(configuration, case)
    state = method.init(case.params)._replace(count=case.count)
    return method.update(gradient, state, case.params, class_losses_fn=losses_fn, value=loss)


def transformation(configuration: Configuration, case: Case) -> Any:
    method, counts, numbers = configuration.method, case.train_counts, dict(case.numbers)
    rho = numbers.pop("rho")
    options = configuration.options | {
        "mask": {name: name in configuration.scope for name in configuration.leaves},
        "adaptive": configuration.adaptive,
    }
    if method == "sam":
        return jaxlt.sam(rho, **options)
    if method == "gradient_norm_penalty":
        return jaxlt.gradient_norm_penalty(numbers["penalty"], rho, **options)
    if method == "sse_sam":
        return jaxlt.sse_sam(counts, tail_rho=rho, **numbers, **options)
    if method == "cc_sam":
        bounded, all_flat = options.pop("bounded"), options.pop("all_flat")
        numbers["max_relative_radius"] = numbers["max_relative_radius"] if bounded else None
        # A number that the program knows drops the clean pass.
        numbers["flat_ratio"] = 1 if all_flat else numbers["flat_ratio"]
        return jaxlt.cc_sam(counts, radius_scale=rho, **numbers, **options)
    return getattr(jaxlt, method)(counts, rho, **numbers, **options)


def class_losses_fn(
    configuration: Configuration, case: Case
) -> Callable[[optax.Params], jaxlt.ClassLosses]:
    classes = configuration.classes

    def features_fn(params, images):
        return jnp.tanh(images @ params["weights"] + params["shift"][None])

    def classifier_fn(params):
        if configuration.scale is None:
            return jaxlt.Linear(params["kernel"], params["bias"])
        return jaxlt.Cosine(params["kernel"], configuration.scale)

    def loss_fn(logits, labels):
        # Padding has a loss too, that of some class.
        shares = labels if configuration.soft else jnp.eye(classes)[labels.clip(0, classes - 1)]
        return -(shares * case.factors[None] * jax.nn.log_softmax(logits)).sum(1)

    def plain(params):
        logits = classifier_fn(params).logits(features_fn(params, case.images))
        return jaxlt.class_losses(loss_fn(logits, case.labels), case.labels, classes)

    if configuration.path == "plain":
        return plain
    factored = jaxlt.FactoredLosses(
        features_fn, classifier_fn, loss_fn, case.images, case.labels, classes
    )
    if configuration.passes is None:
        return factored
    room = configuration.passes
    passes = jaxlt.Capacity(room) if isinstance(room, int) else jaxlt.Blocks(room)
    return dataclasses.replace(factored, independent=True, passes=passes)
