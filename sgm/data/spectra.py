"""Waves on periodic grids of one, two or three axes, all of the same number of entries a side."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_count

_BY_RANK = {1: "signal", 2: "image", 3: "volume"}


def power_spectrum(x: Float[Array, "*space 1"]) -> tuple[Float[Array, " shells"], Float[Array, " shells"]]:
    """Measure the power spectrum of one signal, image or volume.

    Over m modes of about equal power P, the standard error of the power is P sqrt(2 / m). Compare a known spectrum P(k)
    as its mean over the same modes: in two dimensions the shell k = 1 has modes of length 1 and of sqrt(2), so that the
    mean of a steep P is well below P(1).

    Arguments:
        x: Field of one channel, of one, two or three axes of space of the same length.

    Returns:
        The wave numbers k = 1 ... length // 2; and the mean of |x_k|^2 over the modes whose length rounds to each.

    Raises:
        ValueError: for other than one to three axes of one length, and for more than one channel.

    Example:
        >>> wave = jnp.cos(2 * jnp.pi * 3 * jnp.arange(32) / 32)[:, None]  # three cycles
        >>> k, power = power_spectrum(wave)
        >>> float(k[jnp.argmax(power)]), round(float(jnp.max(power)), 3)
        (3.0, 8.0)
    """
    resolution, rank = x.shape[0], x.ndim - 1
    if rank not in _BY_RANK or set(x.shape[:-1]) != {resolution} or x.shape[-1] != 1:
        raise ValueError(f"power_spectrum: x has shape {x.shape}; pass one, two or three axes of one length, and (1,).")
    last = resolution // 2
    shells = np.rint(wave_numbers(resolution, rank)).astype(np.int32).ravel()
    shells[0] = 0  # the mean of the field, which has no scale of its own
    shells = np.minimum(shells, last + 1)
    total = jnp.bincount(jnp.asarray(shells), mode_powers(x).ravel(), length=last + 2)
    counts = np.bincount(shells, minlength=last + 2)
    return jnp.arange(1, last + 1, dtype=x.dtype), total[1:-1] / counts[1:-1].astype(x.dtype)


def wave_numbers(resolution: int, rank: int) -> np.ndarray:
    """The length of the wave vector of each mode, in cycles per box; 1 for that of the mean: P(0) := P(1)."""
    k = np.fft.fftfreq(resolution, 1 / resolution)
    squares = functools.reduce(np.add, np.meshgrid(*[k**2] * rank, indexing="ij"))
    return np.maximum(np.sqrt(squares), 1)


def mode_powers(x: Float[Array, "*fields 1"], rank: int | None = None) -> Float[Array, "..."]:
    """|x_k|^2 of the orthonormal DFT over the last `rank` axes of space, by default all; without the channel axis."""
    axes = tuple(range(-(x.ndim - 1 if rank is None else rank), 0))
    modes = jnp.fft.fftn(x[..., 0], axes=axes, norm="ortho")
    return modes.real**2 + modes.imag**2


def check_grid(call: str, resolution: int, pivot: float) -> None:
    """Raise unless there is a wave on the grid and the pivot is a wave number."""
    check_count(call, "resolution", resolution, 2)
    if not 0 < pivot < math.inf:
        raise ValueError(f"{call}: pivot = {pivot}; pass a positive wave number, in cycles per box.")


def check_shape(call: str, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise ValueError unless an array has the shape of one example."""
    if shape != expected:
        raise ValueError(f"{call}: {name} has shape {shape}, but that of one example is {expected}; vmap over a batch.")


def check_spectrum(call: str, amplitude: Any, slope: Any) -> None:
    """Raise ValueError unless they make powers that are positive and finite."""
    if not 0 < amplitude < math.inf:
        raise ValueError(f"{call}: amplitude = {amplitude}; pass a positive number.")
    if not math.isfinite(slope):
        raise ValueError(f"{call}: slope = {slope}; pass a finite number.")
