"""Types that many signatures share. Every number may be a Python float, a NumPy scalar, or a (traced) JAX array."""

from typing import TYPE_CHECKING

from jaxtyping import Array, ArrayLike, Float, Key, PRNGKeyArray, Real, UInt32

if TYPE_CHECKING:
    Number = float | Array
else:
    Number = Real[ArrayLike, ""]
"""One real number of a constructor, which `jax.jit`, `jax.grad` and `jax.vmap` may trace."""
Scalar = Float[Array, ""]
Example = Float[Array, "*shape"]
Time = Real[ArrayLike, "*time"]
OfTime = Float[Array, "*time"]
Keys = PRNGKeyArray | Key[Array, " n"] | UInt32[Array, "n 2"]
"""One key, or one for each example."""
