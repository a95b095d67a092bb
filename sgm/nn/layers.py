"""Layers that networks share. Each acts on one example. Arrays of space are channels-last: signals (length, channels),
images (height, width, channels), volumes (depth, height, width, channels).

A layer computes in the precision of its input, to which it casts its parameters; norms take their statistics in float32
or better. So a network chooses its precision by casting what it puts in.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Real

from sgm.checks import check_concrete, check_count
from sgm.nn.product import product
from sgm.random import bernoulli, initial

Layer = TypeVar("Layer", bound=eqx.Module)
Features = Float[Array, " features"]
Image = Float[Array, "height width channels"]
Space = Float[Array, "*space channels"]
Outputs = Float[Array, "*space outputs"]
Precision = Literal["float32", "bfloat16"]


class Linear(eqx.Module):
    """x kernel + bias over the last axis; checkpoint policies know the result as "linear"."""

    kernel: Float[Array, "*depth inputs outputs"]
    bias: Float[Array, "*depth outputs"] | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, key: PRNGKeyArray):
        key_kernel, key_bias = jr.split(key)
        reach = inputs**-0.5
        self.kernel = initial(key_kernel, (inputs, outputs), reach)
        self.bias = initial(key_bias, (outputs,), reach) if bias else None

    def __call__(self, x: Float[Array, "*space inputs"]) -> Float[Array, "*space outputs"]:
        y = product(x, self.kernel.astype(x.dtype))
        return checkpoint_name(y if self.bias is None else y + self.bias.astype(x.dtype), "linear")


class GroupNorm(eqx.Module):
    """Normalise each group of channels over space, then scale and shift each channel.

    By default there are at most 32 groups, of four channels or more where there are as many. Moments are found channel
    by channel in one pass over the image, and combined.

    Reference: Wu and He 2018 (arXiv:1803.08494).
    """

    scale: Features
    shift: Features
    groups: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(self, channels: int, groups: int | None = None, eps: float = 1e-6):
        if groups is not None and (groups < 1 or channels % groups):
            raise ValueError(f"GroupNorm: groups = {groups} does not divide {channels} channels; pass one that does.")
        self.groups = largest_divisor(channels, min(32, channels // 4)) if groups is None else groups
        self.eps = eps
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, x: Space, shift: Features | float = 0.0, scale: Features | float = 0.0) -> Space:
        """x normalised, and then modulated by a shift and a scale of each channel."""
        wide = _at_least_float32(x)
        space = tuple(range(x.ndim - 1))
        # From the first pixel, which loses no digits where a group's mean is large beside its spread.
        centred = wide - jax.lax.stop_gradient(self._of_groups(wide[(0,) * len(space)]))
        first, second = self._of_groups(jnp.stack([jnp.mean(centred**power, space) for power in (1, 2)]))
        shift, scale = (jnp.asarray(part, wide.dtype) for part in (shift, scale))
        slope = self.scale * (1 + scale) * jax.lax.rsqrt(jnp.maximum(second - first**2, 0) + self.eps)
        offset = self.shift * (1 + scale) + shift - first * slope
        return (centred * slope + offset).astype(x.dtype)

    def _of_groups(self, moments):
        """For each channel the mean of its group."""
        size = moments.shape[-1] // self.groups
        means = jnp.mean(moments.reshape(*moments.shape[:-1], self.groups, size), axis=-1)
        # A product, whose result XLA keeps. What is repeated otherwise it finds again for each pixel.
        repeated = jnp.repeat(jnp.eye(self.groups, dtype=moments.dtype), size, axis=1)
        return jnp.matmul(means, repeated, precision="highest")


def activated(
    norm: GroupNorm,
    x: Space,
    shift: Features | float = 0.0,
    scale: Features | float = 0.0,
    act: Callable[[Any], Any] = jax.nn.silu,
) -> Space:
    """act(norm(x, shift, scale)). Its gradient keeps x alone: less memory, and on the CPU less time."""
    return eqx.filter_checkpoint(lambda norm, *inputs: act(norm(*inputs)))(norm, x, shift, scale)


class SelfAttention(eqx.Module):
    """Softmax attention among positions, in `heads` heads; queries and keys are normalised to a learned length.

    Reference: Vaswani et al. 2017 (arXiv:1706.03762); Henry et al. 2020 (arXiv:2010.04245); the RMS norm of each head's
    queries and keys as in Esser et al. 2024 (arXiv:2403.03206, section 5.3.2); rotations as in Su et al. 2021
    (arXiv:2104.09864).
    """

    inlet: Linear
    outlet: Linear
    query_scale: Float[Array, "*depth features"]
    key_scale: Float[Array, "*depth features"]
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, *, key: PRNGKeyArray):
        key_inlet, key_outlet = jr.split(key)
        self.inlet = Linear(width, 3 * width, key=key_inlet)
        self.outlet = Linear(width, width, key=key_outlet)
        self.query_scale = self.key_scale = jnp.ones(width // heads)
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "positions width"],
        rotations: Real[np.ndarray, "positions pairs"] | None = None,
        seen: Bool[Array, " positions"] | None = None,
    ) -> Float[Array, "positions width"]:
        """What each position takes in.

        Arguments:
            x: Features of each position.
            rotations: Angles by which the pairs of features of each position's queries and keys are rotated, so that
                attention knows how far apart they are. Pairs beyond them stay as they are.
            seen: Which positions are attended to, one or more; by default all.
        """
        parts = jnp.split(self.inlet(x), 3, axis=-1)
        query, key, value = (rearrange(part, "p (h c) -> h p c", h=self.heads) for part in parts)
        query, key = rms_norm(query, self.query_scale), rms_norm(key, self.key_scale)
        if rotations is not None:
            query, key = rotated(query, rotations), rotated(key, rotations)
        return self.outlet(rearrange(attend(query, key, value, seen), "h p c -> p (h c)"))


def attend(
    query: Float[Array, "heads positions features"],
    key: Float[Array, "heads others features"],
    value: Float[Array, "heads others features"],
    seen: Bool[Array, " others"] | None = None,
) -> Float[Array, "heads positions features"]:
    """Softmax attention of positions to others, head by head. Weights are found in float32 or better.

    Arguments:
        query: Queries.
        key: Keys.
        value: Values.
        seen: Which others are attended to, one or more; by default all.
    """
    # Queries are scaled and sums divided, not the many scores: half of the time of jax.nn.dot_product_attention.
    query = query * query.shape[-1] ** -0.5
    accumulated = _at_least_float32(query).dtype
    scores = jnp.einsum("hqc,hkc->hqk", query, key, preferred_element_type=accumulated)
    if seen is not None:
        scores = jnp.where(seen, scores, -jnp.inf)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    sums = jnp.einsum("hqk,hkc->hqc", weights.astype(value.dtype), value, preferred_element_type=accumulated)
    return (sums / jnp.sum(weights, axis=-1, keepdims=True)).astype(value.dtype)


def rotated(
    x: Float[Array, "heads positions features"], angles: Real[np.ndarray, "positions pairs"]
) -> Float[Array, "heads positions features"]:
    """Features rotated by the angles, pair by pair: the first of each half together, and so on."""
    pairs = angles.shape[-1]
    cos, sin = (jnp.asarray(wave(angles), x.dtype) for wave in (np.cos, np.sin))
    half = x.shape[-1] // 2
    first, second = x[..., :pairs], x[..., half : half + pairs]
    return jnp.concatenate(
        [
            first * cos - second * sin,
            x[..., pairs:half],
            first * sin + second * cos,
            x[..., half + pairs :],
        ],
        axis=-1,
    )


def rotations_of(grid: tuple[int, ...], features: int, periodic: bool) -> Real[np.ndarray, "positions pairs"]:
    """Angles of each place of a grid, for `SelfAttention`.

    Arguments:
        grid: Number of places along each axis.
        features: Number of features of a head, which the axes share.
        periodic: Whether places are as far apart as on a torus.
    """
    return np.concatenate(angles_of(grid, features // 2 // len(grid), periodic), axis=-1)


def angles_of(grid: tuple[int, ...], count: int, periodic: bool) -> list[Real[np.ndarray, "positions count"]]:
    """The places of a grid along each axis, in row-major order, times `count` frequencies.

    They are from 1 towards 1e-4 radians a place, or if `periodic`, 1, 2, ... turns around the axis.
    """

    def along(axis, place):
        turns = 2 * np.pi / grid[axis] * np.arange(1, count + 1)
        return place.reshape(-1, 1) * (turns if periodic else 1e-4 ** np.linspace(0, 1, count, endpoint=False))

    return [along(axis, place) for axis, place in enumerate(np.indices(grid))]


def layer_norm(x: Float[Array, "*space features"], epsilon: float = 1e-6) -> Float[Array, "*space features"]:
    """Each position's features with mean 0 and variance 1; epsilon is added to their variance."""
    return jax.nn.standardize(_at_least_float32(x), axis=-1, epsilon=epsilon).astype(x.dtype)


def rms_norm(x: Float[Array, "*space features"], scale: Features) -> Float[Array, "*space features"]:
    """Each position's features with mean square 1, times `scale`."""
    wide = _at_least_float32(x)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6) * scale).astype(x.dtype)


def modulate(x: Float[Array, "*space features"], shift: Features, scale: Features) -> Float[Array, "*space features"]:
    """x (1 + scale) + shift."""
    return x * (1 + scale) + shift


def dropout(x: Float[Array, "*any"], rate: float, key: PRNGKeyArray | None) -> Float[Array, "*any"]:
    """Zero each entry with probability `rate` and scale the rest by 1 / (1 - rate); nothing without a key."""
    if key is None or rate == 0:
        return x
    return jnp.where(bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def key_stream(key: PRNGKeyArray | None) -> Iterator[Any]:
    """As many keys as are asked for, or as many Nones."""
    return itertools.repeat(None) if key is None else (jr.fold_in(key, number) for number in itertools.count())


def zeros_like(layer: Layer) -> Layer:
    """The layer with every parameter zero, as last layers start."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, layer)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor that is at most `most`, or 1."""
    return next((count for count in range(most, 1, -1) if number % count == 0), 1)


def to_precision(x: Float[Array, "*any"], precision: Precision) -> Float[Array, "*any"]:
    """x in which a network computes: in bfloat16, or as it is."""
    return x.astype(jnp.bfloat16) if precision == "bfloat16" else x


def check_options(network: str, dropout: float, precision: str, **sizes: int) -> None:
    """Raise unless every size is a count of 1 or more, dropout is a probability below 1 and the precision is known."""
    for name, size in sizes.items():
        check_count(network, name, size)
    check_concrete(network, dropout=dropout)
    if not 0 <= dropout < 1:
        raise ValueError(f"{network}: dropout = {dropout}; pass 0 <= dropout < 1.")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f'{network}: precision = {precision!r}; pass "float32" or "bfloat16".')


def check_shape(network: str, shape: Any) -> None:
    """Raise unless it is the shape of an example with at least one axis and one entry."""
    if not isinstance(shape, tuple | list) or not shape or not all(isinstance(n, int) and n >= 1 for n in shape):
        raise ValueError(
            f"{network}: shape = {shape!r}; pass that of one example, integers of 1 or more, such as (2,) for two "
            "columns or (28, 28, 1) for images."
        )


AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""Names of the axes of space, by their number."""


def check_space(network: str, shape: Any, ranks: tuple[int, ...] = (1, 2, 3)) -> None:
    """Raise unless it is the shape of a signal, an image or a volume, of one of the numbers of axes in `ranks`."""
    is_shape = isinstance(shape, tuple | list) and all(isinstance(n, int) and n >= 1 for n in shape)
    if not is_shape or len(shape) - 1 not in ranks:
        known = " or ".join(f"({', '.join(AXES[rank])}, channels)" for rank in ranks)
        raise ValueError(f"{network}: shape = {shape!r}; pass {known}, or build an MLP.")


def check_divisible(network: str, shape: tuple[int, ...], divisor: int, remedy: str) -> None:
    """Raise unless the divisor divides each axis of space."""
    for name, size in zip(AXES[len(shape) - 1], shape[:-1], strict=True):
        if size % divisor:
            sizes = " or ".join(str(n) for n in (size // divisor * divisor, -(-size // divisor) * divisor) if n)
            raise ValueError(
                f"{network}: the {name} of {tuple(shape)} is {size}, but the network is for multiples of {divisor}, "
                f"such as {sizes}; {remedy}."
            )


def check_rotary(network: str, features: int, axes: int, remedy: str) -> None:
    """Raise unless each axis of space has a pair of a head's features to rotate."""
    if features < 2 * axes:
        raise ValueError(
            f"{network}: rotary is True, but a head has {features} features, and {axes} axes need {2 * axes}; {remedy}."
        )


def check_input(network: str, u: Space, shape: tuple[int, ...]) -> None:
    """Raise unless `u` has the axes and the channels of a network for examples of this shape."""
    check_space(network, u.shape, (len(shape) - 1,))
    if u.shape[-1] != shape[-1]:
        raise ValueError(
            f"{network}: u has shape {u.shape}, but the network was built for {shape}; pass u of {shape[-1]} channels."
        )


def padded_to(x: Space, divisor: int) -> Float[Array, "*padded channels"]:
    """x with zeros at the end of each axis of space, up to a multiple of the divisor."""
    return jnp.pad(x, [(0, -size % divisor) for size in x.shape[:-1]] + [(0, 0)])


def cropped_to(x: Space, space: tuple[int, ...]) -> Float[Array, "*cropped channels"]:
    """The beginning of each axis of space, of these sizes."""
    return x[tuple(slice(size) for size in space)]


def _at_least_float32(x):
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
