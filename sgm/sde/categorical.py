"""Chains of categories.

Each entry of x_0 is a category. With probability beta_k step k draws an entry of x_k afresh from the `target`, and else
keeps it. So with a_k = (1 - beta_1) ... (1 - beta_k), each entry on its own,

    q(x_t | x_s) = a [x_t = x_s] + (1 - a) target(x_t),    a = a_t / a_s,  s < t
    q(x_s | x_t, x_0) proportional to q(x_t | x_s) q(x_s | x_0)

A model gives logits for the categories of x_0: log p(x_0 | x_t) - log q(x_t | x_0) of each entry, up to a number of the
entry. They are what the other entries and the data say of it. Then

    p(x_s | x_t) = sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t)
                 proportional to q(x_t | x_s) sum over x_0 of q(x_s | x_0) exp(logits(x_0))

has positive terms alone, so that nothing cancels, and no division by what may be zero.

Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, table App.1); Austin et al. 2021 (D3PM, arXiv:2107.03006,
section 3 and appendix A).
"""

import dataclasses
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Float64, Int, Integer, PRNGKeyArray

from sgm.checks import check_instance, is_traced
from sgm.random import uniform
from sgm.sde.betas import AbstractBetas, FirstBetas
from sgm.sde.process import AbstractProcess

Categories = Integer[Array, "*shape"]
LOG_ZERO = -1e30
"""The logarithm of zero, finite so that sums and derivatives are."""


class Step(eqx.Module):
    """The numbers of a step from time s to a later time t, or of many along the leading axes.

    Arguments:
        level: Noise level log(sqrt((1 - a_t) / a_t)) at t, as a network sees it.
        log_kept, log_drawn: log a_s and log(1 - a_s).
        log_kept_within, log_drawn_within: log a and log(1 - a) of the step itself, a = a_t / a_s.
    """

    level: Float[Array | np.ndarray, "*steps"]
    log_kept: Float[Array | np.ndarray, "*steps"]
    log_drawn: Float[Array | np.ndarray, "*steps"]
    log_kept_within: Float[Array | np.ndarray, "*steps"]
    log_drawn_within: Float[Array | np.ndarray, "*steps"]


class CategoricalPrior(eqx.Module):
    """Independent entries with one distribution.

    Arguments:
        log_probabilities: Logarithm of the probability of each state.
    """

    log_probabilities: Float[Array, " states"]

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Int[Array, "..."]:
        """One draw of the given shape."""
        return jr.categorical(key, self.log_probabilities, shape=shape).astype(jnp.int32)

    def log_prob(self, x: Int[Array, "..."]) -> Float[Array, ""]:
        """The log-probability of one example, in nats."""
        return jnp.sum(self.log_probabilities[x])


class AbstractCategoricalChain(AbstractProcess):
    """A chain whose step k keeps an entry with probability 1 - beta_k, and else draws it from the `target`.

    A member of the family is its `betas` and its `target`. Its time is k, from t0 = 0, the data, to t1 = N.
    """

    betas: eqx.AbstractVar[AbstractBetas]
    """Table of beta_1 ... beta_N."""
    categories: eqx.AbstractVar[int]
    """Number of categories of the data: x_0 has entries 0 ... categories - 1."""

    @property
    @abstractmethod
    def target(self) -> Float64[np.ndarray, " states"]:
        """Probability of each state of an entry to be drawn. States beyond the categories are never those of data."""

    def __check_init__(self):
        name = type(self).__name__
        check_instance(name, "betas", self.betas, AbstractBetas, "sgm.sde.HarmonicBetas(1000)")
        betas = self.betas.values
        inside = (betas > 0) & (betas < 1)
        inside[-1] |= betas[-1] == 1
        if not np.all(inside):
            bad = int(np.flatnonzero(~inside)[0])
            raise ValueError(
                f"{name}: beta_{bad + 1} = {betas[bad]}; pass betas between 0 and 1, of which the last may be 1."
            )
        target = np.asarray(self.target)
        if target.ndim != 1 or len(target) < self.categories or np.min(target) < 0 or abs(np.sum(target) - 1) > 1e-6:
            raise ValueError(
                f"{name}: target = {target}; give the probability of each state, of {self.categories} or more, which "
                "sum to 1."
            )
        begins = isinstance(self.betas, FirstBetas)  # whose end is not the prior
        if not begins and betas[-1] < 1 and np.min(target[: self.categories]) == 0:
            raise ValueError(
                f"{name}: an entry stays to the end with probability {np.exp(self.log_kept[-1]):.3g}, but the prior "
                f"has probability 0 of category {int(np.argmin(target[: self.categories]))}, so that the bound is "
                "-inf; pass betas of which the last is 1, such as HarmonicBetas."
            )

    @property
    def t0(self) -> float:
        """0, the data."""
        return 0.0

    @property
    def t1(self) -> float:
        """N."""
        return float(self.steps)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.betas.values)

    @property
    def states(self) -> int:
        """Number of states of an entry of x_k, at least that of the categories."""
        return len(self.target)

    @property
    def log_kept(self) -> Float64[np.ndarray, " times"]:
        """log a_k for k = 0 ... N."""
        with np.errstate(divide="ignore"):  # of a last beta of 1
            return np.concatenate([[0.0], np.cumsum(np.log1p(-self.betas.values))])

    @property
    def ends_in_pure_noise(self):
        return bool(np.isneginf(self.log_kept[-1]))

    @property
    def has_flow(self):
        return False

    @property
    def prior(self) -> CategoricalPrior:
        """The target, for every entry."""
        return CategoricalPrior(_log(self.target))

    def until(self, t):
        """The chain of the first t steps."""
        self._check_times("until", 1, t)
        return dataclasses.replace(self, betas=FirstBetas(self.betas, round(float(t))))

    def curves(self, t):
        times, number = np.arange(self.steps + 1), jnp.result_type(float)
        shares, betas = (jnp.asarray(part, number) for part in (np.exp(self.log_kept), self.betas.values))
        kept = jnp.interp(t, jnp.asarray(times, number), shares)
        betas = jnp.interp(t, jnp.asarray(times[1:], number), betas)
        return {"a": kept}, {"log(a / (1 - a))": jnp.log(kept) - jnp.log1p(-kept)}, {"beta": betas}

    def transition(self, s: int, t: int) -> Float64[np.ndarray, "states states"]:
        """The matrix of q(x_t | x_s), a row for each x_s, for steps s <= t, in double precision."""
        self._check_times("transition", 0, s, t)
        kept = np.exp(self._log_kept_within(np.asarray(s), np.asarray(t)))
        return kept * np.eye(self.states) + (1 - kept) * self.target

    def steps_between(self, s: Int[np.ndarray, " *steps"], t: Int[np.ndarray, " *steps"]) -> Step:
        """The numbers of the steps from times `s` to later times `t`, each between 0 and N."""
        self._check_times("steps_between", 0, s, t)
        within, kept, kept_end = self._log_kept_within(s, t), self.log_kept[s], self.log_kept[t]
        level = 0.5 * (_log_of_rest(kept_end) - np.maximum(kept_end, LOG_ZERO))
        parts = level, kept, _log_of_rest(kept), within, _log_of_rest(within)
        return Step(*(np.asarray(np.maximum(part, LOG_ZERO), np.float32) for part in parts))

    @property
    def every_step(self) -> Step:
        """The numbers of the chain's own steps 1 ... N, along a leading axis."""
        return self.steps_between(np.arange(self.steps), np.arange(1, self.steps + 1))

    def log_marginal(self, k: Int[Array, ""], x0: Categories) -> Float[Array, "*shape states"]:
        """log q(x_k | x_0) of each state of each entry, for 0 <= k <= N."""
        self._check_times("log_marginal", 0, k)
        log_kept, log_drawn = (jnp.asarray(table)[k] for table in self._tables)
        moved = log_drawn + _log(self.target)
        stayed = jnp.logaddexp(log_kept, moved)
        return jnp.where(jnp.arange(self.states) == x0[..., None], stayed[x0][..., None], moved)

    def noised(self, k: Int[Array, ""], x0: Categories, key: PRNGKeyArray) -> Categories:
        """Draw x_k given x_0, for 0 <= k <= N."""
        self._check_times("noised", 0, k)
        key_kept, key_drawn = jr.split(key)
        drawn = jnp.exp(jnp.asarray(self._tables[1])[k])
        fresh = self.prior.sample(key_drawn, x0.shape)
        return jnp.where(uniform(key_kept, x0.shape) < drawn, fresh, x0.astype(jnp.int32))

    def entropy(self, k: Int[Array, ""], x0: Categories) -> Float[Array, ""]:
        """The entropy of x_k given x_0, in nats."""
        logs = self.log_marginal(k, x0)
        return -jnp.sum(jnp.exp(logs) * jnp.maximum(logs, 0.5 * LOG_ZERO))

    def prior_mismatch(self, x0: Categories) -> Float[Array, ""]:
        """KL(q(x_N | x_0) || target), in nats."""
        log_end = self.log_marginal(jnp.asarray(self.steps), x0)
        return jnp.sum(divergence(log_end, jnp.broadcast_to(_log(self.target), log_end.shape)))

    def log_posterior(self, step: Step, x: Categories, x0: Categories) -> Float[Array, "*shape states"]:
        """log q(x_s | x_t = x, x_0) of each state of each entry, for one step from s to t."""
        target = _log(self.target)
        forward = self._log_moved(step.log_kept_within, step.log_drawn_within, x, self.states)
        backward = jnp.where(
            jnp.arange(self.states) == x0[..., None],
            jnp.logaddexp(step.log_kept, step.log_drawn + target)[x0][..., None],
            step.log_drawn + target,
        )
        return jax.nn.log_softmax(forward + backward, axis=-1)

    def log_reverse(
        self, step: Step, x: Categories, logits: Float[Array, "*shape categories"]
    ) -> Float[Array, "*shape states"]:
        """log p(x_s | x_t = x) of each state of each entry.

        Arguments:
            step: Numbers of one step from s to t.
            x: State x_t.
            logits: Logit of each category of x_0, given x_t.
        """
        target = _log(self.target)
        forward = self._log_moved(step.log_kept_within, step.log_drawn_within, x, self.states)
        total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        room = [(0, 0)] * x.ndim + [(0, self.states - self.categories)]
        padded = jnp.pad(logits, room, constant_values=LOG_ZERO)
        backward = jnp.logaddexp(step.log_kept + padded, step.log_drawn + target + total)
        return jax.nn.log_softmax(forward + backward, axis=-1)

    def log_likelihood(self, level: Float[Array, ""], x: Categories) -> Float[Array, "*shape categories"]:
        """log q(x_t = x | x_0) for each category of x_0, of each entry, at a noise level."""
        log_kept, log_drawn = -jax.nn.softplus(2 * level), -jax.nn.softplus(-2 * level)
        return self._log_moved(log_kept, log_drawn, x, self.categories)

    def _log_moved(self, log_kept, log_drawn, x, count):
        """log q(x_t = x | x_s) for each of the first `count` states of x_s."""
        moved = log_drawn + _log(self.target)  # One number a state, so that entries take no logarithms.
        stayed = jnp.logaddexp(log_kept, moved)
        return jnp.where(jnp.arange(count) == x[..., None], stayed[x][..., None], moved[x][..., None])

    @property
    def information(self) -> Float64[np.ndarray, " steps"]:
        """What each step 1 ... N takes of the information on an entry of evenly drawn categories, in nats.

        It is E KL(q(x_(k-1) | x_k, x_0) || q(x_(k-1) | x_k)) = I(x_0; x_(k-1)) - I(x_0; x_k): the step's term of the
        bound, of an entry on its own.
        """
        kept, of_data = np.exp(self.log_kept)[:, None], np.arange(self.states) < self.categories
        others = (1 - kept) * self.target
        mean, own = others + kept * of_data / self.categories, others + kept * of_data
        of_others = (self.categories - of_data) * _relative(others, mean)
        told = np.sum(of_others + of_data * _relative(own, mean), axis=1) / self.categories
        return np.maximum(told[:-1] - told[1:], 0.0)

    def _check_times(self, call, least, *times):
        """Raise ValueError unless concrete times are whole, not below `least` nor above N, and do not decrease."""
        if is_traced(times):
            return
        ends = np.broadcast_arrays(least, *(np.asarray(time, np.float64) for time in times), self.steps)
        if not np.all(np.diff(ends, axis=0) >= 0) or np.any(ends != np.rint(ends)):
            raise ValueError(
                f"{type(self).__name__}.{call}: times {', '.join(map(str, times))}; pass whole numbers from {least} to "
                f"{self.steps} that do not decrease."
            )

    @property
    def _tables(self):
        """log a_k and log(1 - a_k) for k = 0 ... N."""
        kept = self.log_kept
        return tuple(np.maximum(part, LOG_ZERO).astype(np.float32) for part in (kept, _log_of_rest(kept)))

    def _log_kept_within(self, s, t):
        # The last beta may be 1, after which there is no earlier time of a = 0.
        return np.where(s == t, 0.0, self.log_kept[t] - np.where(s == t, 0.0, self.log_kept[s]))


def divergence(log_q: Float[Array, "*shape states"], log_p: Float[Array, "*shape states"]) -> Float[Array, "*shape"]:
    """KL(q || p) of each entry, in nats: sum of q (exp(d) - 1 - d), d = log p - log q, whose terms are positive."""
    q, d = jnp.exp(log_q), log_p - log_q
    small, middling = jnp.abs(d) < 0.03, jnp.abs(d) < 1
    near, middle = jnp.where(small, d, 0.0), jnp.where(middling, d, 0.0)
    series = near**2 * (1 / 2 + near * (1 / 6 + near * (1 / 24 + near / 120)))
    close = q * jnp.where(small, series, jnp.expm1(middle) - middle)
    # q exp(d) is p, where q is 0 as well.
    far = jnp.exp(log_p) - q - q * jnp.where(q > 0, d, 0.0)
    return jnp.sum(jnp.where(middling, close, far), axis=-1)


def _log(probabilities: Any) -> Float[Array, " states"]:
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.maximum(np.log(probabilities), LOG_ZERO), jnp.result_type(float))


def _log_of_rest(log_kept):
    """log(1 - a) of log a."""
    with np.errstate(divide="ignore"):
        return np.log(-np.expm1(log_kept))


def _relative(p, q):
    """p log(p / q), 0 where p is."""
    return p * np.log(np.divide(p, q, out=np.ones_like(p), where=p > 0))
