"""Waves of a noised example, by which a network sees its fine structure."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.checks import check_concrete, check_count, check_positive

LONGEST_WAVE = 2 * math.pi
"""The wavelength of cos(u)."""


def check_waves(call: str, frequencies: int, longest_wave: float) -> None:
    """Raise for a negative number of frequencies, and for a wave of no length."""
    check_count(call, "frequencies", frequencies, 0)
    check_concrete(call, longest_wave=longest_wave)
    check_positive(call, "longest_wave", longest_wave)


def waves(
    u: Float[Array, "*shape"], level: Float[Array, ""], frequencies: int, longest: float = LONGEST_WAVE
) -> Float[Array, "2 frequencies *shape"]:
    """cos and sin of f u, f = 2 pi / longest (1, 2, 4, ...), each damped as noise of s = sin(theta) would blur it:

        E over noise of cos(f (u + s noise)) = exp(-(f s)^2 / 2) cos(f u)

    A network learns fine structure of u slowly; the waves have it already. The damping keeps an estimate as smooth
    as its density is at the level.

    Reference: Tancik et al. 2020 (arXiv:2006.10739); Barron et al. 2021 (mip-NeRF, arXiv:2103.13415, section 3.1).
    """
    f = 2 * math.pi / longest * 2.0 ** jnp.arange(frequencies, dtype=u.dtype).reshape(-1, *(1 for _ in u.shape))
    angles, damping = f * u, jnp.exp(-0.5 * f**2 * jax.nn.sigmoid(2 * level).astype(u.dtype))
    return damping * jnp.stack([jnp.cos(angles), jnp.sin(angles)])
