"""SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM as optax gradient transformations, one file each.

Each is a link of `optax.chain` and stands first: it takes the gradient of the batch-mean loss
and returns the sharpness-aware gradient of the batch whose `class_losses_fn` is given to
`update`; what follows (clipping, weight decay, momentum) acts on that. The incoming gradient must
be that of `class_losses_fn(params).mean()` and nothing more: `sam`, `imb_sam`, `focal_sam` and
SSE-SAM's second stage read it as such, the others do not read it, so penalties belong behind the
method. Passes are counted with the caller's own: under one `jax.jit` XLA merges the forward passes
at w into one. Where `class_losses_fn` is a `jaxlt.FactoredLosses`, methods take the passes that
its docstring names, with the same result.

Composition with optax:

* `optax.chain`, `optax.apply_if_finite` and `optax.inject_hyperparams` work on each. The last
  takes every callable for a schedule, so list `mask` in its `static_args` when it is a callable.
  `apply_if_finite` looks at the incoming gradient alone: put it around what follows the method to
  have it look at the method's.
* `optax.masked` and `optax.multi_transform` hand their members a pruned tree, at which no
  `class_losses_fn` can be evaluated: place the method before them and give it its own `mask`.
* `optax.MultiSteps` belongs behind the method: chain the method with
  `optax.GradientTransformationExtraArgs(*optax.MultiSteps(...).gradient_transformation())`.
"""
