"""The variational bound of a discrete chain."""

import math

import equinox as eqx
import jax.random as jr
import numpy as np

from sgm.checks import check_count
from sgm.evaluation.metric import AbstractMetric, Row
from sgm.likelihood.elbo import bits_over_gaussian, elbo
from sgm.model.kernel import AbstractVariance, FixedSmall
from sgm.nn.condition import condition_from
from sgm.sde.chain import DiscreteChain

_SAME_VARIANCE = 0.05


class ChainBound(AbstractMetric):
    """The bound on log p(x_0) of a `DiscreteChain`; for data of variance 1, also in bits over a Gaussian.

    Arguments:
        variance: Variance of the reverse transitions.
        steps: Number of the chain's steps that each of two draws visits, for each example.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than one step; when evaluated, for a process that is no `DiscreteChain`.

    Example:
        >>> report = sgm.evaluate(chain, model, data, [ChainBound(sgm.model.FixedLarge(), steps=10)], key)
        >>> bound = report["bound"]
        >>> nats, stderr = bound.value, bound.stderr

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.4).
    """

    variance: AbstractVariance = FixedSmall()
    steps: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        check_count("ChainBound", "steps", self.steps)

    def check(self, context):
        if not isinstance(context.sde, DiscreteChain):
            raise ValueError(
                f"ChainBound: the process is a {type(context.sde).__name__}; pass a DiscreteChain, or the metric "
                "ContinuousBound()."
            )

    def columns(self, context, x, fields, key):
        chain, (key, key_levels) = context.sde, jr.split(key)
        assert isinstance(chain, DiscreteChain)  # which `check` has seen to
        how = {"variance": self.variance, "steps": min(self.steps, chain.steps - 1)}
        x, cond = context.real(x, key_levels), condition_from(fields)
        return {"bound": np.asarray(elbo(chain, context.model, x, key, cond=cond, **how))}

    def rows(self, context, columns):
        rows = [Row.mean("bound", columns["bound"], "nats", "on log p(x_0)")]
        first = np.asarray(context.real(context.data.rows("train", 0, 1024)[0], jr.key(0)))
        if abs(float(np.var(first)) - 1) < _SAME_VARIANCE:
            bits = np.asarray(bits_over_gaussian(columns["bound"], math.prod(context.data.shape)))
            rows.append(Row.mean("bits_over_gaussian", bits, note="for data of variance 1"))
        return rows
