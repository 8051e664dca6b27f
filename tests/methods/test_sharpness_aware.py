"""Methods of any groups, in public: what the five methods are written on."""

from typing import Any

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but
from small_problems import (
    COUNTS,
    METHODS,
    NUM_CLASSES,
    assert_close,
    batch,
    class_losses_fn_of,
    first_update,
    initial_params,
    is_classifier,
    largest_difference,
    update,
)

import jaxlt

SHARES = np.array([[1.0, 0.5, 0.0, 0.0, 0.0], [0.0, 0.3, 1.0, 0.2, 0.0]])
FEW = np.arange(NUM_CLASSES) >= 3


def terms(y, shares, radii, clean=None):
    """Brute force's, of groups whose weights are shares of the batch-mean loss."""
    clean = 1 - shares.sum(0) if clean is None else clean
    labels = np.asarray(y)
    groups = [
        brute_force.Group(row[labels] / len(y), 1.0, brute_force.fixed(radius))
        for row, radius in zip(shares, radii, strict=True)
    ]
    return brute_force.Terms(clean[labels] / len(y), groups)


@pytest.mark.usefixtures("x64")
class TestEquation:
    @pytest.mark.parametrize(
        ("arguments", "options"),
        [
            ({}, {}),
            ({"mask": is_classifier}, {"scope": ["classifier.bias", "classifier.kernel"]}),
            ({"adaptive": True, "per_leaf": True}, {"adaptive": True, "per_leaf": True}),
            ({"reads_gradient": False}, {}),
        ],
    )
    def test_groups_that_overlap(self, arguments: dict[str, Any], options):
        tx = jaxlt.sharpness_aware(SHARES, rho=(0.05, 0.2), **arguments)
        params, (x, y) = initial_params(), batch(2)
        gradient, state = first_update(tx, x, y)
        expected = brute_force.one_equation(params, x, y, terms(y, SHARES, (0.05, 0.2)), **options)
        assert_close(gradient, expected.gradient, 1e-12)
        np.testing.assert_allclose(state.perturbation_norm, expected.perturbation_norms, rtol=1e-6)
        np.testing.assert_allclose(state.sharpness, expected.sharpness, rtol=1e-6)

    def test_clean_weights_of_ones_own(self):
        clean = np.array([0.0, 0.1, 2.0, 1.0, 0.5])
        tx = jaxlt.sharpness_aware(SHARES, 0.1, clean=clean)
        x, y = batch(2)
        expected = brute_force.one_equation(
            initial_params(), x, y, terms(y, SHARES, (0.1, 0.1), clean)
        )
        assert_close(first_update(tx, x, y)[0], expected.gradient, 1e-12)

    def test_a_schedule_and_a_bound(self):
        params, (x, y) = initial_params(), batch(2)
        schedule: Any = optax.linear_schedule(0.01, 0.1, 2)
        tx = jaxlt.sharpness_aware(SHARES, (schedule, 1e3), max_relative_radius=0.02)
        size = float(optax.tree.norm(params))
        state = tx.init(params)
        for radius in (0.01, 0.055, 0.1):
            gradient, state = update(tx, state, params, x, y)
            bound = min(radius, 0.02 * size), 0.02 * size
            expected = brute_force.one_equation(params, x, y, terms(y, SHARES, bound))
            assert_close(gradient, expected.gradient, 1e-7)
        assert optax.tree.get(state, "bounded") == (0.5 if 0.02 * size > 0.1 else 1)

    def test_a_radius_of_its_own_formula(self):
        def radius_fn(rho, norms, theta_norm, size):
            return rho * norms * theta_norm / size

        tx = jaxlt.sharpness_aware(SHARES, 3.0, radius_fn=radius_fn)
        params, (x, y) = initial_params(), batch(2)

        def radii(norms, theta_norm, size):
            return [3.0 * norm * theta_norm / size for norm in norms]

        plain = terms(y, SHARES, (0, 0))
        own = plain._replace(groups=[group._replace(radii=radii) for group in plain.groups])
        expected = brute_force.one_equation(params, x, y, own)
        assert_close(first_update(tx, x, y)[0], expected.gradient, 1e-12)

    def test_groups_that_follow_the_batch(self):
        def objective_fn(counts, step):
            rarest = jnp.where(counts > 0, 1 / jnp.maximum(counts, 1), 0)
            return jaxlt.Objective.of_shares(rarest[None], counts)

        tx = jaxlt.sharpness_aware(jaxlt.Groups(objective_fn, num_groups=1), 0.1)
        x, y = batch(0)
        counts = np.bincount(y, minlength=NUM_CLASSES)
        shares = np.where(counts > 0, 1 / np.maximum(counts, 1), 0)[None]
        expected = brute_force.one_equation(initial_params(), x, y, terms(y, shares, (0.1,)))
        assert_close(first_update(tx, x, y)[0], expected.gradient, 1e-12)

    @pytest.mark.parametrize(
        ("sums_to_mean", "num_groups", "clean"),
        soak_but(
            {(True, 1, None), (True, 2, 0.4)},
            [(known, n, clean) for known in (False, True) for n in (1, 2) for clean in (None, 0.4)],
        ),
    )
    def test_groups_that_weigh_in_the_objective(self, sums_to_mean, num_groups, clean):
        """The incoming gradient is that of the parts, whatever the groups weigh."""
        mix = np.array([0.5, 0.25])[:num_groups]
        rest = 1.0 if clean is None else 1 - clean

        def objective_fn(counts, step):
            size = counts.sum()
            at_w = None if clean is None else jnp.full_like(counts, clean) / size
            rows = jnp.full((num_groups, counts.size), rest / num_groups)
            return jaxlt.Objective(at_w, rows / size, jnp.asarray(mix))

        groups = jaxlt.Groups(objective_fn, num_groups, sums_to_mean=sums_to_mean)
        tx = jaxlt.sharpness_aware(groups, (0.1, 0.2)[:num_groups])
        x, y = batch(2)
        gradient, state = first_update(tx, x, y)
        members = [
            brute_force.Group(
                np.full(len(y), rest / num_groups / len(y)), m, brute_force.fixed(radius)
            )
            for m, radius in zip(mix, (0.1, 0.2), strict=False)
        ]
        by_hand = brute_force.Terms(np.full(len(y), (clean or 0) / len(y)), members)
        expected = brute_force.one_equation(initial_params(), x, y, by_hand)
        assert_close(gradient, expected.gradient, 1e-12)
        np.testing.assert_allclose(state.sharpness, expected.sharpness, rtol=1e-6)

    @pytest.mark.parametrize(
        ("name", "groups", "rho"),
        [
            ("sam", [[1.0]], 0.1),
            ("imb_sam", [np.array(COUNTS) < 20], 0.1),
            ("sse_sam", np.array([np.array(COUNTS) >= 20, np.array(COUNTS) < 20]), (0.05, 0.1)),
        ],
    )
    def test_the_methods_are_choices_of_groups(self, name, groups, rho):
        tx = jaxlt.sharpness_aware(np.array(groups), rho)
        one, other = (first_update(method, *batch(2)) for method in (tx, METHODS[name]()))
        assert largest_difference(one[0], other[0]) == 0


class TestGroupsAtRest:
    def test_a_radius_that_is_the_number_0_costs_no_pass(self):
        calls = []

        def class_losses_fn(params):
            calls.append(params)
            return class_losses_fn_of(*batch(2))(params)

        params = initial_params()
        zero = jnp.zeros([])  # known only when the step runs
        counted = []
        for radii in ((0.1, 0.0), (0.1, zero)):
            tx = jaxlt.sharpness_aware(SHARES, radii)
            calls.clear()
            gradient, state = tx.update(
                params, tx.init(params), params, class_losses_fn=class_losses_fn
            )
            counted.append((len(calls), gradient, state))
        assert [number for number, _, _ in counted] == [2, 3]
        assert_close(counted[0][1], counted[1][1], 1e-6)
        assert counted[0][2].perturbation_norm[1] == counted[0][2].sharpness[1] == 0

    @pytest.mark.parametrize("radii", [(0.1, 0.2), (0.1, 0.0)])
    def test_no_scatter(self, radii):
        """Some processors run it as a loop, in which nobody can count a step's collectives."""
        tx = jaxlt.sharpness_aware(SHARES, radii)
        jaxpr = jax.make_jaxpr(lambda: first_update(tx, *batch(2)))()
        assert "scatter" not in str(jaxpr)

    def test_all_at_rest_is_the_plain_gradient(self):
        tx = jaxlt.sharpness_aware(SHARES, (0, 0))
        gradient, _ = first_update(tx, *batch(2))
        assert_close(gradient, first_update(jaxlt.sam(0.0), *batch(2))[0], 1e-6)


@pytest.mark.usefixtures("x64")
class TestPartOfTheBatch:
    @pytest.mark.parametrize(
        "name", soak_but({"sam", "focal_sam"}, [name for name in METHODS if name != "cc_sam"])
    )
    def test_directions_are_of_the_part_and_the_descent_of_the_whole(self, name):
        """By the gradient at the perturbed parameters, found from the part alone."""
        params, (x, y) = initial_params(), batch(2)
        whole, part = class_losses_fn_of(x, y), class_losses_fn_of(x[:6], y[:6])
        tx = METHODS[name]()
        gradient, _ = tx.update(
            jax.grad(lambda p: whole(p).mean())(params),
            tx.init(params),
            params,
            class_losses_fn=whole,
            ascent_losses_fn=part,
        )
        of_method = {
            "sam": lambda y: brute_force.sam(y, 0.1),
            "imb_sam": lambda y: brute_force.imb_sam(y, COUNTS, 0.1, 20),
            "sse_sam": lambda y: brute_force.sse_sam(y, COUNTS, 0.05, 0.1, 20),
            "focal_sam": lambda y: brute_force.focal_sam(y, COUNTS, 0.2, 0.8, 3.2),
        }[name]
        of_whole, of_part = of_method(y), of_method(y[:6])
        expected = brute_force.weighted_gradient(params, x, y, of_whole.clean)
        for group, small in zip(of_whole.groups, of_part.groups, strict=True):
            eps = brute_force.perturbation(params, x[:6], y[:6], small, sorted(params))
            there = brute_force.weighted_gradient(
                brute_force.added(params, eps), x, y, group.weights
            )
            expected = {k: g + group.mix * there[k] for k, g in expected.items()}
        assert_close(gradient, expected, 1e-12)

    def test_a_group_without_images_in_the_part_stays_where_it_is(self):
        x, y = batch(2)
        part = np.flatnonzero(~FEW[np.asarray(y)])
        params, whole = initial_params(), class_losses_fn_of(x, y)
        tx = jaxlt.sharpness_aware(FEW[None], 0.1)
        plain = jax.grad(lambda p: whole(p).mean())(params)
        gradient, state = tx.update(
            plain,
            tx.init(params),
            params,
            class_losses_fn=whole,
            ascent_losses_fn=class_losses_fn_of(x[part], y[part]),
        )
        assert_close(gradient, plain, 1e-12)
        assert optax.tree.get(state, "perturbation_norm") == 0

    def test_each_class_as_a_group_is_refused(self):
        params, losses_fn = initial_params(), class_losses_fn_of(*batch(2))
        tx = jaxlt.cc_sam(COUNTS)
        with pytest.raises(ValueError, match=r"^ascent_losses_fn must be None where each class"):
            tx.update(
                params,
                tx.init(params),
                params,
                class_losses_fn=losses_fn,
                ascent_losses_fn=losses_fn,
            )


class TestMeasurements:
    @pytest.mark.parametrize("name", METHODS)
    def test_the_loss_is_measured_or_given_or_nan(self, name):
        params, (x, y) = initial_params(), batch(2)
        tx, losses_fn = METHODS[name](), class_losses_fn_of(x, y)
        loss, plain = jax.value_and_grad(lambda p: losses_fn(p).mean())(params)
        without, given = (
            tx.update(plain, tx.init(params), params, class_losses_fn=losses_fn, **extra)[1]
            for extra in ({}, {"value": loss})
        )
        assert np.isclose(given.loss, loss)
        assert np.isnan(without.loss) == np.isnan(without.sharpness).all() == (name == "sam")
        if name != "sam":
            assert_close(without, given, 0)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"groups": [1.0, 0.0]}, r"groups must have shape \(G, C\), .*, got \(2,\)"),
            ({"groups": [[]]}, r"groups must have shape \(G, C\), .*, got \(1, 0\)"),
            ({"groups": ["many", "few"]}, r"groups must have shape \(G, C\), .*, got \(2,\)"),
            ({"groups": [[1.0], [1.0, 0.0]]}, r"groups must have shape \(G, C\), .*, got \(2,\)"),
            ({"groups": [["many"]]}, r"groups must hold finite numbers, got \['many'\]"),
            ({"groups": [[np.nan]]}, r"groups must hold finite numbers, got \[nan\]"),
            ({"clean": [1.0]}, r"clean must have shape \(5,\), as groups has, got \(1,\)"),
            ({"rho": (0.1,)}, "rho must hold one radius for each of the 2 groups, got 1"),
            ({"rho": np.array([0.1])}, "rho must hold one radius for each of the 2 groups, got 1"),
            ({"rho": np.array(["0.1", "0.2"])}, "rho must hold numbers, got"),
            ({"rho": np.array([1j, 1j])}, "rho must hold numbers, got"),
            ({"rho": (0.1, -0.1)}, r"rho\[1\] must be at least 0 and finite, got -0.1"),
            ({"rho": np.array([0.1, -0.1])}, "rho must be at least 0 and finite, got"),
            ({"rho": (0.1, "0.1")}, r"rho\[1\] must be one number, or a schedule of it, got '0.1'"),
            ({"rho": -0.1}, "rho must be at least 0 and finite, got"),
            ({"max_relative_radius": -1}, "max_relative_radius must be at least 0 and finite"),
        ],
    )
    @pytest.mark.usefixtures("unchecked_arrays")
    def test_one_line(self, arguments, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            jaxlt.sharpness_aware(**{"groups": SHARES, "rho": 0.1} | arguments)

    @pytest.mark.parametrize(
        "objective",
        [
            lambda counts, step: jaxlt.Objective(None, jnp.ones((1, counts.size)), jnp.ones(1)),
            lambda counts, step: jaxlt.Objective(None, jnp.ones((2, 1)), jnp.ones(2)),
            lambda counts, step: jaxlt.Objective(jnp.ones(1), jnp.ones((2, 5)), jnp.ones(2)),
        ],
    )
    def test_an_objective_of_other_shapes(self, objective):
        tx = jaxlt.sharpness_aware(jaxlt.Groups(objective, num_groups=2), 0.1)
        with pytest.raises(ValueError, match=r"^objective_fn must return clean, groups and mix of"):
            first_update(tx, *batch(2))

    def test_chunks_of_few_groups(self):
        with pytest.raises(ValueError, match=r"^chunk_size must be None where no class is a group"):
            jaxlt.sharpness_aware(SHARES, 0.1, chunk_size=2)

    def test_a_schedule_that_falls_below_0_is_loud(self):
        schedule: Any = optax.linear_schedule(0.1, -0.1, 2)
        tx, params = jaxlt.sharpness_aware(SHARES, schedule), initial_params()
        state = tx.init(params)
        for found in (False, False, True):
            gradient, state = update(tx, state, params, *batch(2))
            assert all(np.isnan(g).all() == found for g in jax.tree.leaves(gradient))

    def test_clean_beside_an_objective(self):
        groups = jaxlt.Groups(lambda counts, step: None, 1)
        with pytest.raises(ValueError, match=r"^clean must be None where groups is a Groups"):
            jaxlt.sharpness_aware(groups, 0.1, clean=np.ones(5))

    def test_losses_of_another_number_of_classes(self):
        tx = jaxlt.sharpness_aware(SHARES[:, :4], 0.1)
        with pytest.raises(ValueError, match=r"^class_losses_fn must return losses of 4 classes"):
            first_update(tx, *batch(2))


@pytest.mark.usefixtures("x64")
class TestInjectHyperparams:
    @pytest.mark.parametrize("static", [(), ("groups",)])
    def test_groups_may_be_traced(self, static):
        tx = optax.inject_hyperparams(jaxlt.sharpness_aware, static_args=static)(SHARES, 0.1)
        params, (x, y) = initial_params(), batch(2)
        gradient, _ = jax.jit(lambda state: update(tx, state, params, x, y))(tx.init(params))
        expected, _ = first_update(jaxlt.sharpness_aware(SHARES, 0.1), x, y)
        assert_close(gradient, expected, 1e-7)

    def test_a_method_made_where_jax_traces(self):
        x, y = batch(2)
        made = jax.jit(lambda: first_update(jaxlt.sharpness_aware(jnp.array(SHARES), 0.1), x, y))()
        expected = first_update(jaxlt.sharpness_aware(SHARES, 0.1), x, y)
        assert_close(made[0], expected[0], 1e-7)
