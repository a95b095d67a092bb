"""The covariance of x0 under the noise."""

from collections.abc import Callable

import jax
from jaxtyping import PRNGKeyArray

from sgm.model.base import AbstractModel, Estimate, estimate_of
from sgm.nn.condition import Condition
from sgm.sde.level import cos_of, sin_of
from sgm.types import Example, Scalar


def estimate_and_covariance(
    model: AbstractModel, level: Scalar, u: Example, cond: Condition | None, key: PRNGKeyArray | None = None
) -> tuple[Estimate, Callable[[Example], Example]]:
    """The estimate of a model, and the function v -> C v with the covariance C of x0 given u, by Tweedie's formula.

    C is sin^2 / cos times the Jacobian of E[x0 | u], here its transpose, of which each call takes one product.

    Arguments:
        model: Model.
        level: Noise level log tan(theta), finite.
        u: State of the path.
        cond: Condition of the example.
        key: Key of dropout.

    Reference: Efron 2011 (doi:10.1198/jasa.2011.tm11181), of the second moment.
    """

    def denoised(u):
        estimate = estimate_of(model, level, u, cond, key)
        return estimate.denoised, estimate

    _, pullback, estimate = jax.vjp(denoised, u, has_aux=True)
    return estimate, lambda v: sin_of(level) ** 2 / cos_of(level) * pullback(v)[0]
