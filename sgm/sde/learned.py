"""A schedule that is trained beside the model."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_count, is_traced
from sgm.sde.schedules import AbstractSchedule, check_ratios
from sgm.types import Number


class LearnedLogSNR(AbstractSchedule):
    """A log-SNR that is trained: B(t) = log(1 + exp(-log_snr(t))) on [0, 1], with a monotone network inside.

        log_snr(t) = first + (last - first) (m(t) - m(0)) / (m(1) - m(0))
        m(t) = t + sum over j of exp(height_j) sigmoid(exp(slope_j) (t - centre_j))

    `ends` are first and last. It begins as nearly linear. How it is trained is told in
    `sgm.training.learned_schedule`.

    Arguments:
        ratio_min: Ratio sigma/alpha at t = 0, before training. It is not trained itself, `ends` are.
        ratio_max: Ratio sigma/alpha at t = 1, before training. It is not trained itself, `ends` are.
        width: Number of sigmoids in the network.

    Raises:
        TypeError: for a width that is not whole.
        ValueError: for a width below 1, and unless 0 < ratio_min < ratio_max.

    Example:
        >>> sde = sgm.VP(LearnedLogSNR(ratio_min=1e-3, ratio_max=1e2), t0=0.0)
        >>> round(float(sde.log_snr(0.5)), 2)  # halfway between its ends, 13.82 and -9.21
        2.3

    Reference: Kingma et al. 2021 (VDM, arXiv:2107.00630), whose network is wider.
    """

    ratio_min: Number
    ratio_max: Number
    width: int = eqx.field(static=True)
    ends: Float[Array, "2"]
    heights: Float[Array, " width"]
    slopes: Float[Array, " width"]
    centres: Float[Array, " width"]

    def __init__(self, ratio_min: Number = 1e-3, ratio_max: Number = 1e2, width: int = 32):
        check_count("LearnedLogSNR", "width", width)
        check_ratios("LearnedLogSNR", ratio_min, ratio_max)
        # Python numbers, which no optimiser finds.
        self.ratio_min, self.ratio_max = (
            ratio if is_traced(ratio) else float(ratio) for ratio in (ratio_min, ratio_max)
        )
        self.width = width
        centres = (np.arange(width) + 0.5) / width
        self.ends = -2 * jnp.log(jnp.asarray([ratio_min, ratio_max], jnp.result_type(float)))
        self.heights = jnp.full(width, -math.log(width), self.ends.dtype)
        self.slopes = jnp.full(width, math.log(width), self.ends.dtype)
        self.centres = jnp.asarray(centres, self.ends.dtype)

    def integral(self, t):
        t = jnp.asarray(t, jnp.result_type(float))
        schedule = jax.tree.map(lambda leaf: leaf.astype(t.dtype) if eqx.is_array(leaf) else leaf, self)
        first, last = schedule.ends
        return jax.nn.softplus(-(first + (last - first) * schedule._share(t)))

    def inverse(self, integral):
        integral = jnp.asarray(integral, self.ends.dtype)
        first, last = self.ends
        share = (-jnp.log(jnp.expm1(integral)) - first) / (last - first)
        fixed, wanted = jax.lax.stop_gradient((self, share))

        def halve(_, bracket):
            low, high = bracket
            middle = (low + high) / 2
            below = fixed._share(middle) < wanted
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(wanted), jnp.ones_like(wanted)))
        root = (low + high) / 2
        # One step of Newton's method has the derivatives of the root, by the implicit function theorem.
        _, slope = jax.jvp(fixed._share, (root,), (jnp.ones_like(root),))
        return root - (self._share(root) - share) / slope

    def _share(self, t: Any):
        """(m(t) - m(0)) / (m(1) - m(0))."""

        def network(t):
            bumps = jax.nn.sigmoid(jnp.exp(self.slopes) * (t[..., None] - self.centres))
            return t + bumps @ jnp.exp(self.heights)

        start, end = network(jnp.zeros_like(t, shape=())), network(jnp.ones_like(t, shape=()))
        return (network(t) - start) / (end - start)
