"""SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM as optax gradient transformations, one file each.

Each is a link of `optax.chain` and stands first: `jaxlt/README.md` says what it takes, and how it
composes with others. The incoming gradient must be that of `class_losses_fn(params).mean()` and
nothing more, since some methods read it: penalties belong behind the method.

Each docstring counts a step's passes, the caller's own included, with one forward pass at w for
both: `jaxlt.value_and_grad` hands the caller's to the method. Without it XLA merges the two under
one `jax.jit`, but not through every network.
"""
