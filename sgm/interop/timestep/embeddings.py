"""How networks read the timestep."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.nn.frozen import Frozen
from sgm.nn.layers import Features, Linear


def sinusoids(
    timestep: Float[Array, ""], features: int, *, flip_sin_to_cos: bool = False, freq_shift: float = 0
) -> Features:
    """Sines, then cosines, of the timestep times frequencies 10000^(-k / (features/2 - freq_shift)), k = 0, 1, ...

    Arguments:
        timestep: Timestep.
        features: Number of features; the last is 0 where it is odd.
        flip_sin_to_cos: Whether the cosines come first.
        freq_shift: Number in the exponents; 1 makes the last frequency 1e-4.
    """
    half = features // 2
    # The logarithms are rounded to float32, as the networks were trained: angles are up to 1000.
    logs = np.float32(-math.log(10_000)) * np.arange(half, dtype=np.float32) / np.float32(half - freq_shift)
    angles = timestep * jnp.asarray(np.exp(logs.astype(np.float64)), timestep.dtype)
    waves = [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate([*(reversed(waves) if flip_sin_to_cos else waves), jnp.zeros(features % 2, angles.dtype)])


class GaussianFourierProjection(eqx.Module):
    """Sines and cosines of log(timestep) times random frequencies, which are never trained.

    Reference: Song et al. 2021 (arXiv:2011.13456); Tancik et al. 2020 (arXiv:2006.10739).
    """

    weight: Frozen

    def __init__(self, features: int, *, key: PRNGKeyArray):
        self.weight = Frozen(16 * jr.normal(key, (features,)))

    def __call__(self, timestep: Float[Array, ""]) -> Features:
        angles = jnp.log(timestep) * self.weight.value.astype(timestep.dtype) * 2 * math.pi
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class TimestepEmbedding(eqx.Module):
    """linear_2(silu(linear_1(x)))."""

    linear_1: Linear
    linear_2: Linear

    def __init__(self, inputs: int, width: int, *, key: PRNGKeyArray):
        key_1, key_2 = jr.split(key)
        self.linear_1, self.linear_2 = Linear(inputs, width, key=key_1), Linear(width, width, key=key_2)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " width"]:
        return self.linear_2(jax.nn.silu(self.linear_1(x)))


class LabelEmbedding(eqx.Module):
    """A learned vector for each label; nan for an unknown label."""

    table: Float[Array, "labels width"]

    def __init__(self, labels: int, width: int, *, key: PRNGKeyArray):
        self.table = jr.normal(key, (labels, width))

    def __call__(self, label: Int[Array, ""]) -> Features:
        known = (label >= 0) & (label < len(self.table))
        return jnp.where(known, self.table[label], jnp.nan)


class TimestepTable(eqx.Module):
    """A learned vector for each whole timestep, interpolated linearly between them; nan for one before or after all."""

    table: Float[Array, "timesteps width"]

    def __init__(self, timesteps: int, width: int, *, key: PRNGKeyArray):
        self.table = jr.normal(key, (timesteps, width))

    def __call__(self, timestep: Float[Array, ""]) -> Features:
        last = len(self.table) - 1
        below = jnp.clip(jnp.floor(timestep).astype(int), 0, last)
        lower, upper = (self.table[row].astype(timestep.dtype) for row in (below, jnp.minimum(below + 1, last)))
        known = (timestep >= 0) & (timestep <= last)
        return jnp.where(known, lower + (timestep - below.astype(timestep.dtype)) * (upper - lower), jnp.nan)
