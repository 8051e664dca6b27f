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

CONFIGURATIONS, CASES = 260, 8
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
    if has_no_room(configuration, case):
        # An image left out must not pass for one without gradient.
        nothing = all(np.isnan(leaf).all() for leaf in gradient.values())
        # Groups of all classes may take the batch as it is.
        assert nothing or configuration.method == "sharpness_aware", about
        if nothing:
            return 0.0
    problem = problem_of(configuration, case)
    right = expected(configuration, case, problem)
    assert gradient.keys() == right.gradient.keys(), about
    largest = max(np.abs(leaf).max() for leaf in right.gradient.values())
    error = max(np.abs(leaf - right.gradient[name]).max() for name, leaf in gradient.items())
    assert error <= TOLERANCE * largest, f"{error} of {largest} in {about}"
    close = functools.partial(np.testing.assert_allclose, rtol=SINGLE, err_msg=about)
    close(state.perturbation_norm, right.lengths)
    if configuration.part is not None:
        # It may have no pass at w over the whole batch: NaN says so.
        right = right._replace(rises=np.where(np.isnan(state.sharpness), np.nan, right.rises))
    close(state.sharpness, right.rises, atol=TOLERANCE * case.factors.max())
    hidden = configuration.adaptive and configuration.options.get("bounded")
    close(state.bounded, np.nan if hidden else right.bounded)
    close(state.loss, problem.mean(case.params)[0])
    return error / largest if largest else 0.0


def has_no_room(configuration: Configuration, case: Case) -> bool:
    """Tells whether the only group with passes of its own has more images than these take."""
    method, room = configuration.method, configuration.passes
    if not isinstance(room, int) or configuration.part is not None:
        return False
    if method == "imb_sam" or (method == "sse_sam" and in_second_stage(configuration, case)):
        classes = case.train_counts < case.numbers["tail_threshold"]
    elif method == "sharpness_aware" and configuration.options["groups"] is not None:
        groups = np.array(configuration.options["groups"]) > 0
        moving = groups[1:] if configuration.options["first_rests"] and len(groups) > 1 else groups
        if len(moving) > 1 or (groups.sum(0) > 1).any():
            return False
        classes = moving[0]
    else:
        return False
    return bool(np.isin(case.labels, np.flatnonzero(classes)).sum() > room)


def in_second_stage(configuration: Configuration, case: Case) -> bool:
    switch = configuration.options["switch_step"]
    return switch is not None and bool(case.count >= switch)


def problem_of(configuration: Configuration, case: Case) -> Problem:
    shares = case.labels
    if not configuration.soft:
        shares = (shares[:, None] == np.arange(configuration.classes)).astype(float)
    problem = Problem(case.images, shares, case.factors, configuration.scale)
    if configuration.part is None:
        return problem
    images, shares = case.images[: configuration.part], shares[: configuration.part]
    part = dataclasses.replace(problem, images=images, shares=shares)
    return dataclasses.replace(problem, part=part)


def expected(configuration: Configuration, case: Case, problem: Problem) -> reference.Step:
    options, numbers = dict(configuration.options), dict(case.numbers)
    method, rho = configuration.method, numbers.pop("rho")
    place = (problem, case.params, Scope(configuration.scope, configuration.adaptive))
    if method == "sam":
        return reference.sam(*place, rho)
    if method == "gradient_norm_penalty":
        return reference.gradient_norm_penalty(*place, numbers["penalty"], rho)
    if method == "sharpness_aware":
        rho, numbers = groups_of(configuration, case)
        numbers["groups"] = np.array(numbers["groups"])
        return reference.sharpness_aware(*place, rho, **numbers)
    if method == "sse_sam":
        options = {"second_stage": in_second_stage(configuration, case)}
    if method == "cc_sam":
        bounded, all_flat = options.pop("bounded"), options.pop("all_flat")
        del options["chunk_size"]
        numbers["max_relative_radius"] = numbers["max_relative_radius"] if bounded else None
        numbers["flat_ratio"] = 1.0 if all_flat else numbers["flat_ratio"]
    of_classes = getattr(reference, method)
    return of_classes(*place, rho, train_counts=case.train_counts, **numbers, **options)


def groups_of(configuration: Configuration, case: Case) -> tuple[Any, dict[str, Any]]:
    """Returns radii and arguments of `sharpness_aware`, jaxlt's and the reference's."""
    options, numbers = configuration.options, dict(case.numbers)
    rho = numbers.pop("rho")
    if options["first_rests"]:
        rho = [0, *(rho[group] for group in range(1, options["num_groups"]))]
    if options["groups"] is not None:
        numbers["groups"] = options["groups"]
    if not options["bounded"]:
        numbers["max_relative_radius"] = None
    if not options["clean"]:
        numbers["clean"] = None
    return rho, numbers


def update(configuration: Configuration, case: Case) -> tuple[Any, Any]:
    losses_fn = class_losses_fn(configuration, case)
    if configuration.path == "known":
        loss, gradient, losses_fn = jaxlt.value_and_grad(losses_fn)(case.params)
    else:
        loss, gradient = jax.value_and_grad(lambda w: losses_fn(w).mean())(case.params)
    method = transformation(configuration, case)
    state = method.init(case.params)._replace(count=case.count)
    losses = {"class_losses_fn": losses_fn, "value": loss}
    if configuration.part is not None:
        part = slice(configuration.part)
        few = case._replace(images=case.images[part], labels=case.labels[part])
        losses["ascent_losses_fn"] = class_losses_fn(configuration, few)
    return method.update(gradient, state, case.params, **losses)


def transformation(configuration: Configuration, case: Case) -> Any:
    method, counts, numbers = configuration.method, case.train_counts, dict(case.numbers)
    rho = numbers.pop("rho")
    options = configuration.options | {
        "mask": {name: name in configuration.scope for name in configuration.leaves},
        "adaptive": configuration.adaptive,
    }
    if method == "sharpness_aware":
        radii, numbers = groups_of(configuration, case)
        scope = {name: options[name] for name in ("mask", "adaptive")}
        return jaxlt.sharpness_aware(rho=radii, **numbers, **scope)
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

    if configuration.path in ("plain", "known"):
        return plain
    factored = jaxlt.FactoredLosses(
        features_fn, classifier_fn, loss_fn, case.images, case.labels, classes
    )
    if configuration.passes is None:
        return factored
    room = configuration.passes
    passes = jaxlt.Capacity(room) if isinstance(room, int) else jaxlt.Blocks(room)
    return dataclasses.replace(factored, independent=True, passes=passes)
