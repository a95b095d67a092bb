"""The error that training makes small: that of one example at one noise level."""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.likelihood import AbstractReconstruction, Flat
from sgm.model.base import Estimate
from sgm.model.kernel import AbstractVariance, FixedLarge, Interpolated, transition_kl
from sgm.sde.base import AbstractSDE
from sgm.sde.chain import DiscreteChain
from sgm.sde.level import cos_of, sin_of
from sgm.types import Example, Number, Scalar


class AbstractObjective(eqx.Module):
    """The error of an estimate for u = cos(theta) x0 + sin(theta) noise."""

    @abstractmethod
    def error(
        self, sde: AbstractSDE, level: Scalar, x0: Example, noise: Example, estimate: Estimate
    ) -> Float[Array, ""]:
        """The error, a mean over dimensions.

        Arguments:
            sde: Process of the loss.
            level: Noise level log tan(theta) at which the model was asked.
            x0: Clean example, in standardised coordinates.
            noise: Its noise.
            estimate: Estimate of the model.
        """


class Squared(AbstractObjective):
    """|estimate.noise - noise|^2 / D.

    Example:
        >>> loss = sgm.Loss(UniformWeighting(), UniformTime(), Squared())  # that of DDPM

    Reference: Ho et al. 2020 (arXiv:2006.11239, eq. 14).
    """

    def error(self, sde, level, x0, noise, estimate):
        return jnp.mean(_noise_errors(level, x0, noise, estimate) ** 2)


class SquaredVelocity(AbstractObjective):
    """|estimate.velocity - velocity|^2 / D, the squared error of the noise over cos(theta)^2.

    At pure noise, where the noise is known and `Squared` is zero, it is the error of E[x0].

    Example:
        >>> loss = sgm.Loss(UniformWeighting(), UniformTime(), SquaredVelocity())
        >>> value = loss(sgm.Rectified(), model, x, key)  # of a process that ends in pure noise

    Reference: Salimans and Ho 2022 (arXiv:2202.00512, section 4, "SNR+1 weighting");
        Lin et al. 2023 (arXiv:2305.08891).
    """

    def error(self, sde, level, x0, noise, estimate):
        return jnp.mean((estimate.velocity - _velocity(level, x0, noise)) ** 2)


class Absolute(AbstractObjective):
    """The mean of |estimate.noise - noise| over dimensions.

    Example:
        >>> value = sgm.score_matching_loss(sde, model, x, key, objective=Absolute())

    Reference: Chen et al. 2020 (WaveGrad, arXiv:2009.00713).
    """

    def error(self, sde, level, x0, noise, estimate):
        return jnp.mean(jnp.abs(_noise_errors(level, x0, noise, estimate)))


class Bound(AbstractObjective):
    """c + N / D times the chain's term that ends at this level, in nats: KL of step k, or -log p(x_0 | x_1) - D c.

    c = log(2 pi e) / 2 + l_1 is what the last step, k = 1, costs a dimension where estimate.noise is zero, taken from
    it and shared by all steps, so that it does not stand out. Over steps drawn evenly (`ChainSteps`), the mean is the
    negative bound a dimension, less the prior's term, which no training changes. The process is a `DiscreteChain`.

    Arguments:
        variance: Variance of the reverse transitions.
        reconstruction: Last step of the bound, log p(x_0 | x_1).

    Example:
        >>> loss = sgm.Loss(UniformWeighting(), ChainSteps(), Bound())  # for sgm.train(chain, ..., loss=loss)

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, eq. 14).
    """

    variance: AbstractVariance = FixedLarge()
    reconstruction: AbstractReconstruction = Flat()

    def error(self, sde, level, x0, noise, estimate):
        assert isinstance(sde, DiscreteChain)  # The loss has checked it.
        k = jnp.rint(sde.time(level))
        s, t, first = (sde.level(at) for at in (jnp.maximum(k - 1, 1), jnp.maximum(k, 2), jnp.ones_like(k)))
        log_variance = self.variance.log_variance(s, t, estimate)
        transition = transition_kl(s, t, x0, estimate, log_variance)
        last = -self.reconstruction.log_prob(x0, noise, first, estimate, log_variance)
        cost = 0.5 * math.log(2 * math.pi * math.e) + first
        return cost + jnp.where(k == 1, last - x0.size * cost, transition) * (sde.steps / x0.size)


class Hybrid(AbstractObjective):
    """`Squared`, which trains the mean, and `share` times `Bound`, which trains the variance alone.

    Arguments:
        bound: Bound of a learned variance.
        share: Weight of the bound.

    Raises:
        ValueError: for a bound whose variance is not learned.

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), 32, 2, outputs=2, key=key), sgm.model.WithVariance(), shape=(2,))
        >>> loss = sgm.Loss(UniformWeighting(), ChainSteps(), Hybrid(share=1e-3))  # for sgm.train(chain, ...)

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 16).
    """

    bound: Bound = Bound(Interpolated())
    share: Number = 1e-3

    def __check_init__(self):
        if not self.bound.variance.learned:
            raise ValueError(
                f"Hybrid: the variance is {type(self.bound.variance).__name__}, with nothing to train; pass a Bound of "
                "Interpolated() or Learned(steps), or the objective Squared()."
            )

    def error(self, sde, level, x0, noise, estimate):
        fixed = jax.lax.stop_gradient(estimate)
        of_variance = eqx.tree_at(lambda estimate: estimate.log_variance, fixed, estimate.log_variance)
        by_bound = self.bound.error(sde, level, x0, noise, of_variance)
        return Squared().error(sde, level, x0, noise, estimate) + self.share * by_bound


def _noise_errors(level, x0, noise, estimate):
    """estimate.noise - noise = cos (estimate.velocity - velocity), which is well scaled at both ends."""
    return cos_of(level) * (estimate.velocity - _velocity(level, x0, noise))


def _velocity(level, x0, noise):
    return cos_of(level) * noise - sin_of(level) * x0
