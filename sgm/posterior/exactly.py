"""Entries that are known without noise."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from sgm.posterior.evidence import AbstractGaussianLikelihood, check_mask


class Exactly(AbstractGaussianLikelihood):
    """Some entries of the example are known without noise; draws have them exactly.

    Arguments:
        mask: Truth values of the shape of an example, true where an entry is known.
        known: Example, of which the entries under the mask are used, with batch axes in front for many.

    Raises:
        ValueError: for a mask that is not boolean, and for `known` of another shape.

    Example:
        >>> evidence = Exactly(jnp.asarray([True, False]), jnp.asarray([0.7, 0.0]))  # the first of two entries
        >>> x = sgm.sample_posterior(sde, model, evidence, key, method=PiGDM())
        >>> x[0]
        Array(0.7, dtype=float32)
    """

    mask: Bool[Array, "*shape"]
    known: Float[Array, "..."]
    y: Float[Array, "..."]

    def __init__(self, mask: Shaped[Array | np.ndarray, "*shape"], known: Float[Array | np.ndarray, "..."]):
        self.mask, self.known = jnp.asarray(mask), jnp.asarray(known)
        check_mask("Exactly", self.mask, self.known)
        self.y = jnp.where(self.mask, self.known, jnp.nan)

    def predicted(self, x):
        return x

    def noise_variance(self, predicted):
        return jnp.zeros_like(predicted)

    def log_likelihood(self, x):
        raise ValueError("Exactly: entries without noise have no likelihood; pass Linear(Mask(mask), y, std).")

    def complete(self, x):
        return jnp.where(self.mask, self.y, x)
