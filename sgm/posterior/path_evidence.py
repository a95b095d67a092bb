"""Evidence of 2015, told to the path: each reverse transition of `sgm.model.kernel` knows what is known of the example.

With evidence y of x0, the transition from level t to s that draws p(x0 | y) is

    p(u_s | u_t, y) = p(u_s | u_t) p(y | u_s) / p(y | u_t)

`Denoising` and `Inpainting` put the likelihood of a clean u_s, p(y | x0 = u_s), in the place of p(y | u_s), at every
level alike: the choice of 2015, which needs nothing but the kernel. Their draws are biased, and more steps do not mend
it; tests/benchmarks/posterior_gaps.py prints by how much. `MatchedDenoising` draws the posterior itself.

Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.5), and its published code (`sampler.py`).
"""

from abc import abstractmethod

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from sgm.checks import is_traced
from sgm.nn.units import Units
from sgm.posterior.evidence import AbstractEvidence, check_mask, check_std
from sgm.sde.level import cos_of, removed, sin_of
from sgm.types import Example, Scalar


class AbstractPathEvidence(AbstractEvidence):
    """What is known of one example, as a rule for each transition of the path.

    It is for `PosteriorAncestral` and `ToldTransitions`.
    """

    def observation_shape(self, shape):
        return shape

    @abstractmethod
    def standardised(self, units: Units) -> "AbstractPathEvidence":
        """The evidence, which is in the data's units, in standardised coordinates."""

    def check_levels(self, levels: Float[Array, " times"]) -> None:
        """Raise where it cannot be told at these levels log tan(theta), the sampler's own, falling."""

    @abstractmethod
    def apply(self, level: Scalar, mean: Example, std: Float[Array, "..."]) -> tuple[Example, Float[Array, "..."]]:
        """Mean and standard deviation of u at `level`, given the evidence and those of the reverse transition to it."""


class Inpainting(AbstractPathEvidence):
    """Some entries of the example are known exactly.

    They have the mean `known` and no variance at every level, so that the model sees them cleaner than any it was
    trained on. Known entries under the noise of their level, cos_s known + sin_s z, are no better on exact Gaussians.

    Arguments:
        known: Example, in the data's units, of which the entries under the mask are used, with batch axes in front for
            many.
        mask: Truth values of the shape of one example, true where an entry is known.

    Raises:
        ValueError: for a mask that is not boolean or of another shape.

    Example:
        >>> evidence = Inpainting(jnp.asarray([0.7, 0.0]), jnp.asarray([True, False]))  # the first of two entries
        >>> x = sgm.sample(sde, model, key, 8, method=PosteriorAncestral(evidence, steps=10))
    """

    known: Float[Array, "..."]
    mask: Bool[Array, "*shape"]

    def __init__(self, known: Float[Array | np.ndarray, "..."], mask: Shaped[Array | np.ndarray, "*shape"]):
        self.known, self.mask = jnp.asarray(known), jnp.asarray(mask)
        check_mask("Inpainting", self.mask, self.known)

    @property
    def y(self):
        return self.known

    def standardised(self, units):
        return Inpainting(units.standardise(self.known), self.mask)

    def apply(self, level, mean, std):
        return jnp.where(self.mask, self.known, mean), jnp.where(self.mask, 0.0, std)


class Denoising(AbstractPathEvidence):
    """The example was observed under white noise, observed = x0 + std noise; used at every level alike.

    The reverse transition is the product of the kernel's N(mean, std_k^2) and N(observed, std^2):

    mean + g (observed - mean),        variance g std^2,        g = std_k^2 / (std_k^2 + std^2)

    Where std is small beside the data, the draws have half the variance of the posterior: down all levels the product
    is Langevin dynamics of u with a drift of twice the score of N(observed, std^2).

    Arguments:
        observed: Noisy example, in the data's units, with batch axes in front for many.
        std: Standard deviation of the noise, in the data's units, broadcast to the example.

    Raises:
        ValueError: for std <= 0.

    Example:
        >>> evidence = Denoising(jnp.asarray([0.2, 1.0]), std=0.3)
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=ToldTransitions(steps=10))
    """

    observed: Float[Array, "..."]
    std: Float[Array, "..."]

    def __init__(self, observed: Float[Array | np.ndarray, "..."], std: Float[ArrayLike, "..."]):
        self.observed, self.std = jnp.asarray(observed), jnp.asarray(std)
        check_std("Denoising", self.std, "Inpainting(known, mask)")

    @property
    def y(self):
        return self.observed

    def standardised(self, units):
        return Denoising(units.standardise(self.observed), self.std / units.std.value)

    def apply(self, level, mean, std):
        gain = 1 / (1 + (self.std / std) ** 2)
        return mean + gain * (self.observed - mean), std / jnp.sqrt(1 + (std / self.std) ** 2)


class MatchedDenoising(AbstractPathEvidence):
    """The example was observed under white noise, observed = x0 + std noise; used as a state of the path.

    That state is u = cos(theta) observed at tan(theta) = std.

    At a level l = log tan(theta) above it, u is drawn from the forward transition given that state, whatever the model,

        u_s ~ N(cos_s observed, sin_s^2 - (cos_s std)^2)

    and below it the reverse transitions go on alone. The draws are of p(x0 | observed) for any model, up to the
    sampler's own error; the last level above lies up to one step off, as if std were by so much larger. Evaluations
    above are wasted: a process may end there, a few steps higher, as `sgm.VP(t1=...)` at time(arctan(1.2 std)).

    Arguments:
        observed: Noisy example, in the data's units, with batch axes in front for many.
        std: Standard deviation of the noise, in the data's units, broadcast to the example.

    Raises:
        ValueError: for std <= 0; when it is used, for a process that is below this level after its first step.

    Example:
        >>> evidence = MatchedDenoising(jnp.asarray([0.2, 1.0]), std=0.3)
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=ToldTransitions(steps=20))
    """

    observed: Float[Array, "..."]
    std: Float[Array, "..."]

    def __init__(self, observed: Float[Array | np.ndarray, "..."], std: Float[ArrayLike, "..."]):
        self.observed, self.std = jnp.asarray(observed), jnp.asarray(std)
        check_std("MatchedDenoising", self.std, "Inpainting(known, mask)")

    @property
    def y(self):
        return self.observed

    def standardised(self, units):
        return MatchedDenoising(units.standardise(self.observed), self.std / units.std.value)

    def check_levels(self, levels):
        if not is_traced((levels, self.std)) and jnp.any((jnp.exp(levels[1]) < self.std) & (self.std < jnp.inf)):
            raise ValueError(
                f"MatchedDenoising: std = {self.std}, but after its first step the process is at sigma/alpha = "
                f"{jnp.exp(levels[1])}, already below; pass a process with a later t1, or more steps."
            )

    def apply(self, level, mean, std):
        matched = jnp.log(self.std)
        above = level >= matched
        # The share is made harmless below, where it is negative, for the sake of gradients.
        share = jnp.where(above, removed(matched, level), 1.0)
        mean = jnp.where(above, cos_of(level) * self.observed, mean)
        return mean, jnp.where(above, sin_of(level) * jnp.sqrt(share), std)
