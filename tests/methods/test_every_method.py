"""Each method against its limits, and against what its arguments promise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_problems import (
    COUNTS,
    METHODS,
    NUM_CLASSES,
    RADII,
    assert_close,
    batch,
    changed_update,
    class_losses_fn_of,
    first_update,
    initial_params,
    is_classifier,
    largest_difference,
    update,
)

import jaxlt


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore:tail_threshold must be at most")
class TestLimits:
    @pytest.mark.parametrize(
        ("name", "changed", "limit"),
        [
            ("focal_sam", {"rho": 0.1, "sharpness_weight": 1.0, "gamma": 0.0}, METHODS["sam"]),
            ("imb_sam", {"tail_threshold": 1000}, METHODS["sam"]),
            ("imb_sam", {"tail_threshold": 1000, "group_mean": True}, METHODS["sam"]),
            ("focal_sam", {"sharpness_weight": 0.0}, optax.identity),
            ("cc_sam", {"flat_ratio": 0.0}, optax.identity),
            ("cc_sam", {"max_relative_radius": 0.0}, optax.identity),
            *((name, dict.fromkeys(RADII[name], 0.0), optax.identity) for name in RADII),
        ],
    )
    def test_limit(self, name, changed, limit):
        tx, limit = METHODS[name](**changed), optax.with_extra_args_support(limit())
        for index in (0, 2):
            ours, _ = first_update(tx, *batch(index))
            assert_close(ours, first_update(limit, *batch(index))[0], 1e-14)

    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("sam", {"rho": 0.2}),
            ("sam", {"adaptive": True}),
            ("sam", {"mask": is_classifier}),
            ("imb_sam", {"rho": 0.2}),
            ("imb_sam", {"tail_threshold": 30}),
            ("imb_sam", {"group_mean": True}),
            ("sse_sam", {"head_rho": 0.1}),
            ("sse_sam", {"tail_rho": 0.2}),
            ("sse_sam", {"tail_threshold": 30}),
            ("sse_sam", {"switch_step": 0}),
            ("focal_sam", {"rho": 0.1}),
            ("focal_sam", {"sharpness_weight": 0.4}),
            ("focal_sam", {"gamma": 1.0}),
            ("focal_sam", {"class_counts": (4, 12, 25, 60, 120)}),
            ("cc_sam", {"radius_scale": 0.1}),
            ("cc_sam", {"flat_ratio": 1.0}),
            ("cc_sam", {"max_relative_radius": 0.001}),
            ("cc_sam", {"grad_norm": "per_leaf"}),
            ("cc_sam", {"class_weighting": "class"}),
            ("cc_sam", {"direction": "random"}),
            ("cc_sam", {"magnitude": "constant"}),
            ("cc_sam", {"class_counts": (4, 12, 25, 60, 120)}),
        ],
    )
    def test_every_argument_has_an_effect(self, name, changed):
        x, y = batch(2)
        one, other = (first_update(METHODS[name](**c), x, y)[0] for c in ({}, changed))
        assert largest_difference(one, other) > 1e-4


@pytest.mark.usefixtures("x64")
class TestVanishingGradients:
    @pytest.mark.parametrize("name", METHODS)
    def test_no_gradient_at_all(self, name):
        params, (x, y) = initial_params(), batch(2)

        def class_losses_fn(p):
            return jaxlt.class_losses(0 * (x @ p["dense1.kernel"]).sum(axis=1) + 1, y, NUM_CLASSES)

        gradient, state = changed_update(METHODS[name](), class_losses_fn, params)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
        assert (state.perturbation_norm == 0).all()

    @pytest.mark.parametrize("name", METHODS)
    def test_batch_of_nothing_but_padding(self, name):
        tx, params = METHODS[name](), initial_params()
        gradient, _ = update(tx, tx.init(params), params, batch(2)[0], jnp.full(16, -1))
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "radius"), [(name, radius) for name, radii in RADII.items() for radius in radii]
    )
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (float, -0.1),
            (int, -1),
            (jnp.float32, -0.5),
            (float, "nan"),
            (lambda value: lambda step: value + jnp.asarray(step, float), -0.25),
        ],
    )
    def test_negative_radius(self, name, radius, kind, value):
        with pytest.raises(ValueError, match=f"^{radius} must be at least 0 and finite, got [-n]"):
            METHODS[name](**{radius: kind(value)})

    @pytest.mark.parametrize(
        ("name", "argument"),
        [
            ("focal_sam", "sharpness_weight"),
            ("focal_sam", "gamma"),
            ("cc_sam", "max_relative_radius"),
        ],
    )
    def test_other_negative_number(self, name, argument):
        with pytest.raises(ValueError, match=f"^{argument} must be at least 0 and .*, got -0.5"):
            METHODS[name](**{argument: -0.5})

    @pytest.mark.parametrize("name", [name for name in METHODS if name != "sam"])
    @pytest.mark.parametrize(
        ("class_counts", "message"),
        [
            ((), "class_counts must hold one count for each class, got \\(\\)"),
            ((5, 0), "class_counts must be positive whole numbers, got 0 for class 1"),
            (
                np.array([5, -3]),
                "class_counts must be positive whole numbers, got -3 for class 1",
            ),
        ],
    )
    def test_bad_class_counts(self, name, class_counts, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            METHODS[name](class_counts=class_counts)

    @pytest.mark.parametrize("name", [name for name in METHODS if name != "sam"])
    def test_class_counts_of_another_length_than_the_losses(self, name):
        message = (
            "^class_losses_fn must return losses of 4 classes, as many as class_counts .*got 5"
        )
        with pytest.raises(ValueError, match=message):
            first_update(METHODS[name](class_counts=(60, 25, 12, 4)), *batch(2))

    @pytest.mark.parametrize("name", ["imb_sam", "sse_sam"])
    def test_warns_where_all_classes_are_head_or_all_tail(self, name):
        with pytest.warns(UserWarning, match="^tail_threshold must be above .* 4 images .*, got 4"):
            METHODS[name](tail_threshold=4)
        with pytest.warns(UserWarning, match="^tail_threshold must be at most .* 120 .*, got 121"):
            METHODS[name](tail_threshold=121)

    @pytest.mark.parametrize("name", METHODS)
    def test_mask_that_does_not_fit(self, name):
        with pytest.raises(ValueError, match=r"^mask must select at least one leaf of params"):
            METHODS[name](mask=False).init(initial_params())
        with pytest.raises(ValueError, match=r"^mask must be a prefix of the params pytree"):
            METHODS[name](mask={"head": True}).init(initial_params())

    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize("result", ["array", "tuple"])
    def test_class_losses_fn_that_returns_something_else(self, name, result):
        params, (x, y) = initial_params(), batch(2)
        losses = class_losses_fn_of(x, y)
        wrong = {"array": lambda p: losses(p).sums, "tuple": lambda p: (losses(p), p)}
        tx = METHODS[name]()
        with pytest.raises(TypeError, match=r"^class_losses_fn must return jaxlt.ClassLosses"):
            tx.update(params, tx.init(params), params, class_losses_fn=wrong[result])

    @pytest.mark.parametrize("name", ["imb_sam", "sse_sam"])
    @pytest.mark.parametrize("value", [float("nan"), -1, "20", [20]])
    @pytest.mark.usefixtures("unchecked_arrays")
    def test_threshold_that_is_no_number_of_images(self, name, value):
        with pytest.raises(ValueError, match=r"^tail_threshold must be a number of images, at lea"):
            METHODS[name](tail_threshold=value)

    @pytest.mark.parametrize("value", [-3, 2.5, float("nan"), "3", lambda step: step])
    @pytest.mark.usefixtures("unchecked_arrays")
    def test_step_that_is_no_step(self, value):
        message = r"^switch_step must be a whole number, at least 0, got"
        with pytest.raises(ValueError, match=message):
            METHODS["sse_sam"](switch_step=value)

    @pytest.mark.parametrize("value", [0, -1, 2.5, "3"])
    @pytest.mark.usefixtures("unchecked_arrays")
    def test_chunk_size_that_is_no_number_of_classes(self, value):
        with pytest.raises(ValueError, match=r"^chunk_size must be a whole number, at least 1, go"):
            METHODS["cc_sam"](chunk_size=value)

    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize(
        ("mask", "got"),
        [("classifier", "str"), (0.5, "float"), ({"classifier.bias": "yes"}, "str")],
    )
    def test_mask_of_something_else(self, name, mask, got):
        if isinstance(mask, dict):
            mask = dict.fromkeys(initial_params(), True) | mask
        with pytest.raises(ValueError, match=f"^mask must hold bools, got {got}"):
            METHODS[name](mask=mask).init(initial_params())

    def test_mask_of_scalars_in_place_of_leaves(self):
        masks = {name: np.ones(leaf.shape, bool) for name, leaf in initial_params().items()}
        with pytest.raises(ValueError, match=r"^mask must hold one bool a leaf, got one of shape"):
            jaxlt.sam(mask=masks).init(initial_params())

    def test_mask_that_names_no_leaf(self):
        with pytest.raises(ValueError, match=r"^mask must be a function of the whole params pyt"):
            jaxlt.sam(mask=lambda params: params["head"]).init(initial_params())

    def test_mask_of_a_leaf_in_place_of_the_tree(self):
        message = (
            r"^mask must be a function of the whole params pytree, got one that fails on it: 'd"
        )
        with pytest.raises(ValueError, match=message):
            jaxlt.sam(mask=lambda leaf: leaf.ndim > 1).init(initial_params())

    def test_losses_in_place_of_a_function_to_them(self):
        params, losses_fn, tx = initial_params(), class_losses_fn_of(*batch(2)), jaxlt.sam()
        with pytest.raises(ValueError, match=r"^class_losses_fn must be a .*, got ClassLosses: c"):
            tx.update(params, tx.init(params), params, class_losses_fn=losses_fn(params))

    @pytest.mark.parametrize("name", [name for name in METHODS if name not in ("sam", "cc_sam")])
    @pytest.mark.usefixtures("unchecked_arrays")
    def test_counts_and_radius_swapped(self, name):
        factory, arguments = METHODS[name].factory, dict(METHODS[name].arguments)
        counts, radius = arguments.pop("class_counts"), arguments.pop(RADII[name][0])
        message = r"^(rho|head_rho|class_counts) must (be one number|hold one count)"
        with pytest.raises(ValueError, match=message):
            factory(radius, counts, **arguments)


def test_a_traced_chunk_size_names_what_makes_it_static():
    tx, params = optax.inject_hyperparams(jaxlt.cc_sam)(COUNTS, chunk_size=2), initial_params()
    with pytest.raises(ValueError, match=r"^chunk_size must be known .* among the static_args of"):
        jax.jit(lambda state: update(tx, state, params, *batch(2)))(tx.init(params))
    tx = optax.inject_hyperparams(jaxlt.cc_sam, static_args="chunk_size")(COUNTS, chunk_size=2)
    jax.jit(lambda state: update(tx, state, params, *batch(2)))(tx.init(params))


@pytest.mark.usefixtures("x64")
def test_the_switch_may_be_a_hyperparameter_of_the_state():
    params, (x, y) = initial_params(), batch(2)
    method = METHODS["sse_sam"]
    tx = optax.inject_hyperparams(method.factory)(**method.arguments, switch_step=1)
    state = tx.init(params)
    for phase in (None, 0, 0):
        gradient, state = update(tx, state, params, x, y)
        assert_close(gradient, first_update(method(switch_step=phase), x, y)[0], 1e-7)
