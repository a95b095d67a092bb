"""The variational bound in continuous time, of any process."""

import math

import equinox as eqx
import jax.random as jr
import numpy as np

from sgm.checks import check_count
from sgm.evaluation.metric import AbstractMetric, Row
from sgm.likelihood.continuous_elbo import continuous_elbo
from sgm.model.base import check_process
from sgm.nn.condition import condition_from


class ContinuousBound(AbstractMetric):
    """The bound on log p(x0) in continuous time, of any process, with no solve; of grey levels, on log P(levels).

    Grey levels are dequantised as in training: uniformly, for the bound on the density in a level; or they are the
    middles of their bins, and the last step is the probability of the bin.

    Arguments:
        noise_levels: Number of noise levels that each draw visits.
        draws: Number of draws of each example.

    Raises:
        TypeError: for numbers that are not whole; when evaluated, for a process that is not of real numbers.
        ValueError: for fewer than one noise level or two draws.

    Example:
        >>> report = sgm.evaluate(sde, model, data, [ContinuousBound(noise_levels=16)], key)
        >>> print(report["continuous_bound"])
        continuous_bound ... nats (on log p(x0); ... of the error is the estimate's)

    Reference: Kingma et al. 2021 (arXiv:2107.00630, eq. 15).
    """

    noise_levels: int = eqx.field(static=True, default=64)
    draws: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        check_count("ContinuousBound", "noise_levels", self.noise_levels)
        check_count("ContinuousBound", "draws", self.draws, 2)

    def check(self, context):
        check_process("ContinuousBound", context.sde, "the metric sgm.evaluation.CategoricalBound()")

    def columns(self, context, x, fields, key):
        key, key_levels = jr.split(key)
        x, how = context.real(x, key_levels), {}
        if context.data.levels is not None:
            # The units of the data are levels, so that a bin has width 1.
            how["reconstruction"] = context.dequantisation.reconstruction(context.data.levels)
        how |= {"noise_levels": self.noise_levels, "draws": self.draws, "cond": condition_from(fields), "full": True}
        result = continuous_elbo(context.sde, context.model, x, key, **how)
        return {"continuous_bound": np.asarray(result.value), "continuous_bound_stderr": np.asarray(result.stderr)}

    def rows(self, context, columns):
        values, noise = columns["continuous_bound"], columns["continuous_bound_stderr"]
        of = "on log p(x0)" if context.data.levels is None else "on log P(levels)"
        estimate = float(np.sqrt(np.mean(np.square(noise, dtype=np.float64)) / len(noise)))
        rows = [Row.mean("continuous_bound", values, "nats", f"{of}; {estimate:.4f} of the error is the estimate's")]
        if context.data.levels is not None:
            bits = -values / (math.prod(context.data.shape) * math.log(2))
            rows.append(Row.mean("continuous_bits_per_dim", bits))
        return rows
