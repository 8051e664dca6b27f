"""The one equation behind the methods, the ways to compute it, and the optax link around it."""
