"""What every way to draw from a posterior is."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.model.base import AbstractModel
from sgm.nn.condition import Condition
from sgm.posterior.evidence import AbstractEvidence, AbstractLikelihood
from sgm.sde.base import AbstractSDE


class Draws(eqx.Module):
    """Draws of a posterior, and what else is known of it.

    Arguments:
        x: Draws, of shape (*observations, n, *shape), in the data's units.
        log_evidence: Estimate of log p(y) in nats, of each observation; None of methods that have none.
        stderr: Standard error of log_evidence; inf where it is too large to be told, nan where there is a single run.

    Example:
        >>> evidence = Linear(Mask(jnp.asarray([True, False])), jnp.asarray([1.0]), std=0.1)
        >>> draws = sgm.sample_posterior(sde, model, evidence, key, 8, method=TwistedSMC(16, steps=10), full=True)
        >>> draws.x.shape, draws.log_evidence.shape, draws.stderr.shape
        ((8, 2), (), ())
    """

    x: Float[Array, "..."]
    log_evidence: Float[Array, "..."] | None = None
    stderr: Float[Array, "..."] | None = None


class AbstractPosteriorMethod(eqx.Module):
    """A way to draw from a posterior. A subclass has `draw`, and `takes`, which says what evidence it cannot take."""

    def takes(self, evidence: AbstractEvidence) -> str | None:
        """What to pass in the place of evidence that it cannot take; None where it can, by default for likelihoods."""
        return None if isinstance(evidence, AbstractLikelihood) else "pass a likelihood, as Linear(operator, y, std)"

    @abstractmethod
    def draw(
        self,
        sde: AbstractSDE,
        model: AbstractModel,
        evidence: AbstractEvidence,
        key: PRNGKeyArray,
        n: int,
        *,
        cond: Condition | None,
        batch_size: int | None,
        mesh: Mesh | None,
    ) -> Draws:
        """Draw `n` examples of each posterior.

        Arguments:
            sde: Process.
            model: Model.
            evidence: Evidence, whose `y` has one leading axis, that of observations.
            key: Key of all randomness.
            n: Number of draws of each.
            cond: One condition for all, or one for each observation.
            batch_size: As that of `sgm.sample`.
            mesh: As that of `sgm.sample`.

        Returns:
            Draws of shape (observations, n, *shape), in the data's units.
        """


def has_one_each(model: AbstractModel, cond: Condition | None, count: int) -> bool:
    """Whether there is a condition for each of `count` observations, along a leading axis."""
    return cond is not None and cond.batch_axes(model.conditioning) == {(count,)}


def repeated(tree: Any, n: int) -> Any:
    """Each row of the arrays of a tree `n` times."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), tree)


def check_unused(call: str, **options: Any) -> None:
    """Raise ValueError for options that are given to a method that has no use for them."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{call}: it has no use for {name}; leave it out.")
