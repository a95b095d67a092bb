"""The reverse transition p(u_s | u_t) from noise level t to a lower one s on the universal path.

With levels l = log tan(theta) and r = exp(2 (l_s - l_t)), the signal-to-noise ratio at t over that at s,

    q(u_s | u_t, x0) = N(r cos_s / cos_t u_t + (1 - r) cos_s x0, (1 - r) sin_s^2)
    q(u_t | u_s)     = N(cos_t / cos_s u_s, (1 - r) sin_t^2)

The kernel has the mean of the first at the model's x0, and a variance of one of the kinds below. For a process
x = rho u it is p(x_s | x_t) with both scaled by rho. At s = -inf, where no noise is left, its mean is x0.

Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (arXiv:2006.11239, eq. 6 and 7).
"""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.checks import check_count
from sgm.model.base import Estimate
from sgm.sde.level import cos_of, removed, sin_of
from sgm.types import Example, Scalar


def posterior_mean(s: Scalar, t: Scalar, u: Example, x0: Example) -> Example:
    """The mean of q(u_s | u_t = u, x0), for levels s <= t; t may be inf."""
    # r cos_s / cos_t, in a form without a division by zero where t = inf.
    kept = jnp.exp(s - t) * sin_of(s) / sin_of(t)
    return kept * u + removed(s, t) * cos_of(s) * x0


def log_posterior_variance(s: Scalar, t: Scalar) -> Scalar:
    """log((1 - r) sin_s^2), that of q(u_s | u_t, x0)."""
    return jnp.log(removed(s, t)) + jax.nn.log_sigmoid(2 * s)


def log_transition_variance(s: Scalar, t: Scalar) -> Scalar:
    """log((1 - r) sin_t^2), that of q(u_t | u_s): the beta of a chain's step."""
    return jnp.log(removed(s, t)) + jax.nn.log_sigmoid(2 * t)


def transition_kl(
    s: Scalar, t: Scalar, x0: Example, estimate: Estimate, log_variance: Float[Array, "..."]
) -> Float[Array, ""]:
    """KL(q(u_s | u_t, x0) || p(u_s | u_t)) in nats, of a kernel with this log-variance at the estimate for u_t.

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, eq. 14); Ho et al. 2020 (arXiv:2006.11239, eq. 8).
    """
    excess = log_posterior_variance(s, t) - log_variance
    gap = removed(s, t) * cos_of(s) * (x0 - estimate.denoised)
    return 0.5 * jnp.sum(jnp.expm1(excess) - excess + gap**2 * jnp.exp(-log_variance))


class AbstractVariance(eqx.Module):
    """The variance of the reverse transition."""

    learned: ClassVar[bool] = False
    """Whether it is that of the model's second output."""

    @abstractmethod
    def log_variance(self, s: Scalar, t: Scalar, estimate: Estimate) -> Float[Array, "..."]:
        """log of the variance of p(u_s | u_t), a scalar or one for each entry."""


class FixedSmall(AbstractVariance):
    """The variance of q(u_s | u_t, x0): right where the data are one point.

    Example:
        >>> x = sgm.sample(sde, model, key, 8, method=sgm.Ancestral(10, FixedSmall()))

    Reference: Ho et al. 2020 (arXiv:2006.11239, section 3.2).
    """

    def log_variance(self, s, t, estimate):
        return log_posterior_variance(s, t)


class FixedLarge(AbstractVariance):
    """The variance of q(u_t | u_s), beta: right where the data are N(0, I).

    Example:
        >>> bound = sgm.elbo(chain, model, x, key, variance=FixedLarge())  # nats, one number for each example

    Reference: Ho et al. 2020 (arXiv:2006.11239, section 3.2).
    """

    def log_variance(self, s, t, estimate):
        return log_transition_variance(s, t)


class Interpolated(AbstractVariance):
    """Between the two in log space: the model's second output v is -1 at the small one and 1 at the large.

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), outputs=2, key=key), WithVariance(), shape=(2,))
        >>> loss = sgm.Loss(UniformWeighting(), ChainSteps(), Hybrid(Bound(Interpolated())))

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 15), whose v is (1 + v) / 2 here.
    """

    learned = True

    def log_variance(self, s, t, estimate):
        share = (1 + _second_output("Interpolated", estimate)) / 2
        return share * log_transition_variance(s, t) + (1 - share) * log_posterior_variance(s, t)


class Given(AbstractVariance):
    """The model's second output as the variance itself, for the steps on which it was learned; nan where negative.

    Example:
        >>> method = sgm.Ancestral(chain.steps - 1, Given(), ChainGrid())  # of a model WithVariance()

    Reference: the variance "learned" of diffusers' DDPMScheduler.
    """

    learned = True

    def log_variance(self, s, t, estimate):
        return jnp.log(_second_output("Given", estimate))


class Learned(AbstractVariance):
    """sigmoid(logit(beta) + v / sqrt(steps)), around the large variance beta, with the model's second output v.

    `steps` are those of the chain that it is learned on.

    Arguments:
        steps: Number of steps of the chain on which it is learned.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than one step.

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), outputs=2, key=key), WithVariance(), shape=(2,))
        >>> bound = sgm.elbo(chain, model, x, jr.key(1), variance=Learned(chain.steps))

    Reference: Sohl-Dickstein et al. 2015, by its published code.
    """

    learned = True
    steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_count("Learned", "steps", self.steps)

    def log_variance(self, s, t, estimate):
        log_beta = log_transition_variance(s, t)
        logit = log_beta - jnp.log(-jnp.expm1(log_beta))
        return jax.nn.log_sigmoid(logit + _second_output("Learned", estimate) / self.steps**0.5)


def _second_output(name, estimate):
    if estimate.log_variance is None:
        raise ValueError(
            f"{name}: the model has no second output for the variance; give its ScoreModel a prediction that has one, "
            "such as sgm.model.WithVariance(prediction), or pass FixedSmall() or FixedLarge()."
        )
    return estimate.log_variance
