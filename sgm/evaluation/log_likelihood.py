"""The log-likelihood, and what to hold it against."""

import dataclasses
import math

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from sgm.checks import check_count, check_positive
from sgm.data import AbstractDataset
from sgm.evaluation.metric import AbstractMetric, Row
from sgm.likelihood import AbstractTrace, Exact, bits_per_dim, dequantise, discrete_log_prob, log_prob, prior_mismatch
from sgm.model.base import check_process
from sgm.nn.condition import condition_from

_MOST_DIMENSIONS = 4096  # Of the Gaussian that is fitted as a reference.


class LogLikelihood(AbstractMetric):
    """log p of real data, or the bound on log P of grey levels, with its references.

    Examples with missing entries have none, and are left out. With several draws of each example and random probes, the
    noise of the probes raises the number, which is then no bound: its note says so.

    Arguments:
        trace: Estimator of the divergence.
        tolerance: Tolerance of the adaptive solve, where no accuracy is asked for.
        accuracy: Accuracy in nats, for which tolerances and probes are chosen for each example.
        samples: Number of draws of each dequantised example, over which probabilities are averaged.

    Raises:
        TypeError: for a number of samples that is not whole; when evaluated, for a process that is not of real numbers.
        ValueError: for fewer than one sample, and for a tolerance or an accuracy that is not positive.

    Example:
        >>> metric = LogLikelihood(sgm.Hutchinson(4), tolerance=1e-3)
        >>> report = sgm.evaluate(sde, model, data, [metric], key)
        >>> nats, evaluations = report["log_prob"].value, report["evaluations"].value

    Reference: Song et al. 2021 (arXiv:2011.13456, appendix D.2).
    """

    trace: AbstractTrace = Exact()
    tolerance: float = eqx.field(static=True, default=1e-4)
    accuracy: float | None = eqx.field(static=True, default=None)
    samples: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_count("LogLikelihood", "samples", self.samples)
        for name in ("tolerance", "accuracy"):
            value = getattr(self, name)
            if value is not None:
                check_positive("LogLikelihood", name, value)

    def check(self, context):
        check_process("LogLikelihood", context.sde, "the metric sgm.evaluation.CategoricalBound()")

    def columns(self, context, x, fields, key):
        sde, model, data = context.sde, context.model, context.data
        how: dict = {"trace": self.trace, "accuracy": self.accuracy, "cond": condition_from(fields), "full": True}
        if self.accuracy is None:
            how["controller"] = diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance)
        missing = np.any(np.isnan(x).reshape(len(x), -1), axis=1) & data.missing
        if data.levels is None:
            # Any value will do for an example that has none of its own: its log p is nan.
            x = np.where(np.isnan(x), np.asarray(model.units.mean.value, x.dtype), x) if data.missing else x
            result = log_prob(sde, model, x, key, **how)
            result = dataclasses.replace(result, value=jnp.where(missing, jnp.nan, result.value))
            nfe = result.nfe
        else:
            how |= {"count": data.levels, "dequantisation": context.dequantisation, "samples": self.samples}
            result = discrete_log_prob(sde, model, x, key, **how)
            nfe = jnp.sum(result.draws.nfe, axis=0)
        converged = jnp.isfinite(result.value) if result.converged is None else result.converged
        found = {"log_prob": result.value, "stderr": result.stderr, "nfe": nfe, "converged": converged}
        if data.levels is not None:
            found["bits_per_dim"] = bits_per_dim(result.value, math.prod(data.shape), levels=None)
        exact = data.exact_log_prob(x, fields)
        if exact is not None:
            found["exact_log_prob"] = exact
        return {name: np.asarray(values) for name, values in found.items()}

    def rows(self, context, columns):
        data, dim = context.data, math.prod(context.data.shape)
        of_levels = "" if data.levels is None else "bound on log P(levels)"
        if of_levels and self.samples > 1 and not isinstance(self.trace, Exact):
            of_levels = "no bound: the noise of random probes raises the mean over several draws; samples=1 has none"
        rows = [Row.mean("log_prob", columns["log_prob"], "nats", of_levels)]
        missed = int(np.sum(np.isfinite(columns["log_prob"]) & ~columns["converged"]))
        if missed:
            rows.append(Row("inaccurate", missed, note="values not known to the accuracy asked for", is_score=False))
        rows.append(Row("evaluations", float(np.mean(columns["nfe"])), note="of the model, an example", is_score=False))
        first = context.real(data.rows("train", 0, 1024)[0], jr.key(0))
        first = first[~np.any(np.isnan(first).reshape(len(first), -1), axis=1)] if data.missing else first
        mismatch = np.mean(prior_mismatch(context.sde, context.model.units.standardise(first)))
        rows.append(
            Row("prior_mismatch", float(mismatch), unit="nats", note="at most, from the prior at t1", is_score=False)
        )
        if "exact_log_prob" in columns:
            rows.append(
                Row.mean("exact_log_prob", columns["exact_log_prob"], "nats", "of the same examples", is_score=False)
            )
        if data.entropy is not None:
            rows.append(
                Row(
                    "minus_entropy",
                    -data.entropy,
                    unit="nats",
                    note="the largest mean of log p of any model",
                    is_score=False,
                )
            )
        if data.levels is not None:
            rows.append(Row.mean("bits_per_dim", columns["bits_per_dim"]))
            if data.entropy is not None:
                rows.append(Row("entropy_bits_per_dim", data.entropy / (dim * math.log(2)), is_score=False))
            gaussian = gaussian_bits_per_dim(data, context.split, len(columns["log_prob"]), context.key)
            rows += [] if gaussian is None else [gaussian]
            rows.append(
                Row("uniform_bits_per_dim", math.log2(data.levels), note="all levels equally likely", is_score=False)
            )
        return rows


def gaussian_bits_per_dim(data: AbstractDataset, split: str, n: int, key: PRNGKeyArray) -> Row | None:
    """Bits/dim of the full-covariance Gaussian with the moments of the dequantised training images, in float64.

    It is found on the first `n` examples of a split. It is None where there are fewer training images than dimensions,
    or more than 4096 dimensions.
    """
    dim, levels = math.prod(data.shape), data.levels
    if levels is None or not data.size("train") > dim <= _MOST_DIMENSIONS:
        return None
    key_train, key_test = jr.split(key)

    def blocks(part, total, key, size=4096):
        for start in range(0, total, size):
            x, _ = data.rows(part, start, min(start + size, total))
            yield np.asarray(dequantise(x, levels, jr.fold_in(key, start)), np.float64).reshape(-1, dim)

    total = data.size("train")
    mean, second = np.zeros(dim), np.zeros((dim, dim))
    for x in blocks("train", total, key_train):
        mean += x.sum(axis=0) / total
        second += x.T @ x / total
    cov = (second - np.outer(mean, mean)) * total / (total - 1)
    precision, log_det = np.linalg.inv(cov), np.linalg.slogdet(cov).logabsdet
    test = blocks(split, n, key_test)
    quadratic = np.concatenate([np.sum((x - mean) @ precision * (x - mean), axis=1) for x in test])
    log_probs = -0.5 * (quadratic + log_det + dim * math.log(2 * math.pi))
    bits = np.asarray(bits_per_dim(log_probs.astype(np.float32), dim, levels=levels))
    note = "a Gaussian with the moments of the training images"
    return Row.mean("gaussian_bits_per_dim", bits, note=note, is_score=False)
