"""Posteriors by guidance: a model of p(x0 | u, y) from a model of p(x0 | u), which every sampler takes."""

from abc import abstractmethod
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, AbstractWrapper
from sgm.model.per_example import PerExample
from sgm.nn.units import Units
from sgm.posterior.evidence import AbstractEvidence, AbstractGaussianLikelihood, AbstractLikelihood, Linearised, with_y
from sgm.posterior.method import AbstractPosteriorMethod, Draws, has_one_each, repeated
from sgm.posterior.tweedie import estimate_and_covariance
from sgm.sample import sample
from sgm.sde.level import LARGEST_LEVEL
from sgm.solve.method import AbstractMethod
from sgm.types import Example, Scalar


class AbstractGuidance(AbstractPosteriorMethod):
    """A rule that moves the estimate of x0 towards the evidence.

    With C the covariance of x0 given u, which is tan(theta) sin(theta) times the Jacobian of the estimate, and the
    likelihood linear with the Jacobian A near it, every rule here is a choice of weights of the residual r = y - A x0:

        E[x0 | u, y] = E[x0 | u] + C A^T weights(r)
    """

    @property
    @abstractmethod
    def sampler(self) -> AbstractMethod:
        """Method that draws."""

    @abstractmethod
    def weights(self, likelihood: Linearised, level: Scalar, covariance: Callable[[Example], Example]) -> Array:
        """Weights of the residual, of its shape.

        Arguments:
            likelihood: Likelihood near the estimate, in standardised coordinates.
            level: Noise level log tan(theta).
            covariance: Function v -> C v, of which each call costs a product with the Jacobian of the model.
        """

    def change(
        self,
        evidence: AbstractLikelihood,
        units: Units,
        level: Scalar,
        x0: Example,
        covariance: Callable[[Example], Example],
    ) -> Example:
        """How far the estimate x0, in standardised coordinates, is moved."""
        assert isinstance(evidence, AbstractGaussianLikelihood)  # As `takes` has it.
        likelihood = evidence.linearised(x0, units)
        return covariance(likelihood.pull(self.weights(likelihood, level, covariance)))

    def guide(self, model: AbstractModel, evidence: AbstractEvidence) -> "Guided":
        """The model of the posterior, which `sgm.sample`, `sgm.encode` and `sgm.log_prob` take.

        Arguments:
            model: Model.
            evidence: Evidence about one example, or one for each example of a call along the leading axis of its `y`.

        Raises:
            TypeError: for evidence that it cannot take.
            ValueError: for evidence about examples of another shape.

        Example:
            >>> x = sgm.sample(sde, MMPS().guide(model, evidence), key, 64, method=sgm.DDIM(100))
        """
        call = type(self).__name__
        check_instance(call, "model", model, AbstractModel, "sgm.ScoreModel(network, data=data)")
        check_evidence(call, self, evidence)
        evidence.check(call, model.shape)
        if evidence.batch_axes(call, model.shape):
            evidence = with_y(evidence, PerExample(evidence.y))
        return Guided(model, evidence, self)

    def takes(self, evidence):
        if isinstance(evidence, AbstractGaussianLikelihood):
            return None
        return "pass a likelihood with Gaussian noise, as Linear(operator, y, std), or another method, as SplitGibbs()"

    def draw(self, sde, model, evidence, key, n, *, cond, batch_size, mesh):
        count = len(evidence.y)
        guided = self.guide(model, with_y(evidence, repeated(evidence.y, n)))
        cond = repeated(cond, n) if has_one_each(model, cond, count) else cond
        x = sample(sde, guided, key, count * n, cond=cond, method=self.sampler, batch_size=batch_size, mesh=mesh)
        return Draws(x.reshape(count, n, *model.shape))


class Guided(AbstractWrapper):
    """A model of p(x0 | u, y): what `guide` of a guidance returns.

    Arguments:
        model: Model of p(x0 | u).
        evidence: Evidence about one example.
        guidance: Guidance.

    Example:
        >>> evidence = Linear(Mask(jnp.asarray([True, False])), jnp.asarray([1.0]), std=1.0)
        >>> posterior = MMPS().guide(model, evidence)  # a Guided
        >>> posterior.denoise(sgm.VE(), 1.0, jnp.zeros(2)).round(2)  # of noise alone, the mean of the posterior
        Array([0.5, 0. ], dtype=float32)
    """

    model: AbstractModel
    evidence: AbstractEvidence
    guidance: AbstractGuidance

    def __init__(self, model: AbstractModel, evidence: AbstractEvidence, guidance: AbstractGuidance):
        self.model, self.evidence, self.guidance = model, evidence, guidance

    def predict(self, level, u, cond=None, key=None):
        bounded = jnp.minimum(level, LARGEST_LEVEL)
        estimate, covariance = estimate_and_covariance(self.model, bounded, u, cond, key)
        assert isinstance(self.evidence, AbstractLikelihood)  # As `takes` has it.
        x0 = estimate.denoised
        return estimate.moved(level, self.guidance.change(self.evidence, self.units, bounded, x0, covariance))


def check_evidence(call: str, method: AbstractPosteriorMethod, evidence: AbstractEvidence) -> None:
    """Raise TypeError unless the method can take the evidence."""
    check_instance(call, "evidence", evidence, AbstractEvidence, "sgm.posterior.Linear(operator, y, std)")
    if (remedy := method.takes(evidence)) is not None:
        raise TypeError(f"{call}: it cannot take the evidence {type(evidence).__name__}; {remedy}.")
