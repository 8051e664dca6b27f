"""SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM as optax gradient transformations, one file each.

Each is a link of `optax.chain` and stands first. Its `update` takes the gradient of the batch-mean
loss, `params` and the keyword `class_losses_fn`, and returns the batch's sharpness-aware gradient.
What follows (clipping, weight decay, momentum) acts on that result.

The incoming gradient must be that of `class_losses_fn(params).mean()` and nothing more. `sam`,
`imb_sam`, `focal_sam` and SSE-SAM's second stage read it as such, the others do not read it. So
penalties belong behind the method.

Each docstring counts the passes of a step, the caller's own included: under one `jax.jit`, XLA
merges the forward passes at w into one. With a `jaxlt.FactoredLosses` as `class_losses_fn` the
methods skip work, as its docstring says, and the result is the same.

Composition with optax:

* `optax.chain`, `optax.apply_if_finite` and `optax.inject_hyperparams` work on each.
* `optax.inject_hyperparams` takes every callable for a schedule: a callable `mask` belongs in its
  `static_args`.
* `optax.apply_if_finite` looks at the incoming gradient alone. To have it look at the method's
  result, put it around what follows the method.
* `optax.masked` and `optax.multi_transform` hand their members a pruned tree, at which no
  `class_losses_fn` can be evaluated. Place the method before them and give it its own `mask`.
* `optax.MultiSteps` belongs behind the method: chain the method with
  `optax.GradientTransformationExtraArgs(*optax.MultiSteps(...).gradient_transformation())`.
"""
