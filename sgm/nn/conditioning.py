"""How every network reads a condition, and what it was built to read."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Num, PRNGKeyArray, PyTree

from sgm.nn.frozen import Frozen
from sgm.nn.layers import Features, Linear, Space
from sgm.random import initial

_FREQUENCIES = 16


@dataclass(frozen=True)
class Conditioning:
    """What a network is conditioned on, each part optional.

    Arguments:
        params: Number of parameters, which are standardised (see `Standardisation`).
        classes: Number of classes of a label.
        image: Shape of an image, on the grid of the data or another: (height, width, channels), or (length, channels)
            for signals and (depth, height, width, channels) for volumes.
        observed: Number of entries of an example, any of which can be observed (see `Transformer`).
        null: Whether the network has a learned null, which stands for the whole condition where `cond.dropped` is true
            and where no condition is given.

    Raises:
        ValueError: for sizes below 1 and an image of another number of axes.

    Example:
        >>> network = MLP((2,), conditioning=Conditioning(params=2, classes=10), key=key)
        >>> output = network(jnp.asarray(0.0), jnp.ones(2), sgm.Condition(params=[0.3, 0.8], label=7))
    """

    params: int | None = None
    classes: int | None = None
    image: tuple[int, ...] | None = None
    observed: int | None = None
    null: bool = False

    def __post_init__(self):
        if self.image is not None:
            object.__setattr__(self, "image", tuple(self.image))
            if len(self.image) not in (2, 3, 4):
                raise ValueError(
                    f"Conditioning: image = {self.image}; pass its shape, such as (height, width, channels)."
                )
        counts = {name: (getattr(self, name),) for name in ("params", "classes", "observed")}
        for name, sizes in (counts | {"image": self.image or ()}).items():
            if any(size is not None and not (isinstance(size, int) and size >= 1) for size in sizes):
                raise ValueError(
                    f"Conditioning: {name} = {getattr(self, name)}; pass integers of 1 or more, or leave it out."
                )

    def check_space(self, network: str, axes: int) -> None:
        """Raise ValueError unless an image has as many axes as the examples."""
        if self.image is not None and len(self.image) != axes:
            raise ValueError(
                f"{network}: the condition's image has shape {self.image}, but the examples have {axes} axes; pass an "
                "image of as many, or build an MLP."
            )

    @property
    def parts(self) -> Mapping[str, Any]:
        """The parts that a condition must have, with their sizes."""
        parts = {"params": self.params, "label": self.classes, "image": self.image}
        return {name: size for name, size in parts.items() if size is not None}

    def check(self, call: str, cond: Any) -> None:
        """Raise unless `cond`, of one example or a batch, is what the network was built for."""
        if cond is not None and not hasattr(cond, "dropped"):
            raise TypeError(f"{call}: cond is a {type(cond).__name__}; pass a Condition.")
        given = [name for name in ("params", "label", "image") if getattr(cond, name, None) is not None]
        if given != list(self.parts) and (given or not self.null):
            raise ValueError(
                f"{call}: cond has {_listed(given)}, but the network was built for {_listed(self.parts)}; "
                "pass a Condition with just those parts."
            )
        if getattr(cond, "dropped", None) is not None and not self.null:
            raise ValueError(
                f"{call}: cond has `dropped`, but the network was built without a null to put in place of a condition; "
                "leave it out, or build the network with Conditioning(..., null=True) and train it with "
                "Loss(condition_dropout=0.1)."
            )
        for name in given:
            self._check_part(call, name, getattr(cond, name), self.parts[name])
        if (observed := getattr(cond, "observed", None)) is not None:
            if self.observed is None:
                raise ValueError(
                    f"{call}: cond has `observed`, but the network has no entries that can be observed; leave it out, "
                    "or build a Transformer with Conditioning(observed=...) and train it with a masking."
                )
            self._check_part(call, "observed", observed, self.observed)

    def check_one(self, cond: Any) -> None:
        """Raise unless `cond` is what the network was built for, of one example."""
        self.check("network", cond)
        axes = set() if cond is None else cond.batch_axes(self)
        if not axes <= {()}:
            raise ValueError(
                f"network: cond has the batch axes {sorted(axes)}, but a network acts on one example; use jax.vmap."
            )

    def _check_part(self, call, name, part, size):
        if name == "label":
            if not jnp.issubdtype(part.dtype, jnp.integer):
                raise ValueError(f"{call}: cond.label has dtype {part.dtype}; pass integers from 0 to {size - 1}.")
            if not isinstance(part, Tracer) and not np.all((np.asarray(part) >= 0) & (np.asarray(part) < size)):
                raise ValueError(f"{call}: cond.label = {part}; pass labels from 0 to {size - 1}.")
            return
        shape = size if name == "image" else (size,)
        if part.shape[-len(shape) :] != shape:
            raise ValueError(
                f"{call}: cond.{name} has shape {part.shape}, but the network was built for {shape}; "
                f"pass {name} of that shape, or batch axes in front of it."
            )


class Standardisation(eqx.Module):
    """(x - mean) / std, of statistics that are saved with a model and never trained.

    Arguments:
        mean, std: float32 or float64, of shape (features,), in the units of x.
    """

    mean: Frozen
    std: Frozen

    def __init__(self, mean: ArrayLike, std: ArrayLike):
        self.mean, self.std = Frozen(mean), Frozen(std)

    def __call__(self, x: Num[Array, " features"]) -> Features:
        mean, std = self.mean.value, self.std.value
        return (x.astype(mean.dtype) - mean) / std


class Embedding(eqx.Module):
    """The noise level and the condition as one vector of `width` features.

    Between two dense layers, sinusoids of the level are joined by a linear map of the standardised `cond.params` and a
    learned vector for `cond.label`, or by a learned null in place of both. A label that is traced and not one of the
    classes makes the features nan.
    """

    first: Linear
    standardisation: Standardisation | None
    params: Linear | None
    labels: Float[Array, "classes width"] | None
    null: Features | None
    null_image: Features | None
    second: Linear
    conditioning: Conditioning = eqx.field(static=True)

    def __init__(self, width: int, conditioning: Conditioning, *, observes: bool = False, key: PRNGKeyArray):
        if conditioning.observed is not None and not observes:
            raise ValueError(
                "Conditioning: observed entries are for a Transformer alone, but the network is another; build a "
                "Transformer, or leave observed, or the loss's masking, out."
            )
        key_first, key_params, key_label, key_null, key_second = jr.split(key, 5)
        params, classes, image = conditioning.params, conditioning.classes, conditioning.image
        self.first = Linear(2 * _FREQUENCIES, width, key=key_first)
        self.standardisation = None if params is None else Standardisation(jnp.zeros(params), jnp.ones(params))
        self.params = None if params is None else Linear(params, width, key=key_params)
        self.labels = None if classes is None else initial(key_label, (classes, width), 1.0)
        self.null = initial(key_null, (width,), 1.0) if conditioning.null else None
        self.null_image = jnp.zeros(image[-1]) if conditioning.null and image else None
        self.second = Linear(width, width, key=key_second)
        self.conditioning = conditioning

    def __call__(self, level: Float[Array, ""], cond: Any) -> Features:
        self.conditioning.check_one(cond)
        embedded = self.first(sinusoids(level)) + self._condition(cond).astype(level.dtype)
        return jax.nn.silu(self.second(jax.nn.silu(embedded)))

    def image(self, cond: Any) -> Space | None:
        """The condition's image, None where the network has none."""
        if self.conditioning.image is None:
            return None
        if self.null_image is None:
            return _to_floating(cond.image)
        null = jnp.broadcast_to(self.null_image, self.conditioning.image)
        if _is_absent(cond):
            return null
        image = _to_floating(cond.image)
        return _where_dropped(cond, null.astype(image.dtype), image)

    def standardised(self, cond: Any) -> Features | None:
        """The condition's standardised parameters, zero where it is dropped; None where the network has none."""
        if self.params is None or self.standardisation is None:
            return None
        kernel = self.params.kernel
        if _is_absent(cond):
            return jnp.zeros(self.conditioning.params, kernel.dtype)
        params = self.standardisation(cond.params).astype(kernel.dtype)
        # Zero where dropped, so that a parameter that is missing, and nan, does no harm to gradients.
        return _where_dropped(cond, jnp.zeros_like(params), params)

    def _condition(self, cond):
        if _is_absent(cond):
            return jnp.zeros(()) if self.null is None else self.null
        condition, params = jnp.zeros(()), self.standardised(cond)
        if self.params is not None and params is not None:
            condition = condition + self.params(params)
        if self.labels is not None:
            known = (cond.label >= 0) & (cond.label < len(self.labels))
            condition = condition + jnp.where(known, self.labels[cond.label], jnp.nan)
        return condition if self.null is None else _where_dropped(cond, self.null, condition)


def join_image(
    u: Space, image: Float[Array, "*others more"] | None, periodic: bool = False
) -> Float[Array, "*space joined"]:
    """The channels of `u` and those of the image, resized to its grid (linear, antialiased; on a torus if periodic)."""
    if image is None:
        return u
    return jnp.concatenate([u, _resized(image.astype(u.dtype), u.shape[:-1], periodic)], axis=-1)


def _resized(image, space, periodic):
    old = image.shape[:-1]
    if old == space:
        return image
    # So many entries of the other side become whole ones of the grid, and reach as far as the weights do.
    more = [before // math.gcd(before, after) if periodic else 0 for before, after in zip(old, space, strict=True)]
    padded = jnp.pad(image, [*((count, count) for count in more), (0, 0)], mode="wrap") if periodic else image
    ends = [count * after // before for count, before, after in zip(more, old, space, strict=True)]
    grid = [after + 2 * end for after, end in zip(space, ends, strict=True)]
    whole = jnp.asarray(jax.image.resize(padded, (*grid, image.shape[-1]), "linear"))
    return whole[tuple(slice(end, end + after) for end, after in zip(ends, space, strict=True))]


def sinusoids(level: Float[Array, ""]) -> Features:
    """cos and sin of the level at fixed frequencies, from 1/8 to 8 radians a unit of log tan(theta)."""
    angles = level * jnp.geomspace(0.125, 8.0, _FREQUENCIES, dtype=level.dtype)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


def with_statistics(model: PyTree, mean: ArrayLike, std: ArrayLike) -> PyTree:
    """Put the statistics of its parameters into a network, a model of one, or a vmapped ensemble of them.

    Arguments:
        model: Network, or any pytree that holds networks of so many parameters.
        mean: Means of the parameters, of shape (params,), in the units of `cond.params`.
        std: Standard deviations of the parameters, of the same shape and units.

    Returns:
        `model` with these statistics, which no optimiser can reach.

    Raises:
        ValueError: for statistics of another size, a `std` that is not positive, or a network without parameters.

    Example:
        >>> params = np.random.default_rng(0).uniform(0.0, 300.0, (1000, 2))
        >>> network = MLP((2,), conditioning=Conditioning(params=2), key=key)
        >>> network = with_statistics(network, params.mean(axis=0), params.std(axis=0))
    """
    found = [node for node in jax.tree.leaves(model, is_leaf=_is_standardisation) if _is_standardisation(node)]
    if not found:
        raise ValueError("with_statistics: the network has no parameters; build it with Conditioning(params=...).")
    size, shapes = found[0].mean.value.shape[-1], (np.shape(mean), np.shape(std))
    if shapes != ((size,), (size,)):
        raise ValueError(f"with_statistics: mean and std have shapes {shapes}, but the network has {size} parameters.")
    if not np.all(np.isfinite(mean)) or not np.all((np.asarray(std) > 0) & np.isfinite(std)):
        raise ValueError(f"with_statistics: mean = {mean}, std = {std}; pass finite ones, and std > 0.")

    def replace(node):
        if not _is_standardisation(node):
            return node
        like = node.mean.value  # of an ensemble, with a leading axis
        return Standardisation(*(jnp.broadcast_to(jnp.asarray(part, like.dtype), like.shape) for part in (mean, std)))

    return jax.tree.map(replace, model, is_leaf=_is_standardisation)


def warn_of_params(call: str, model: PyTree, params: Num[Array | np.ndarray, "n params"]) -> None:
    """Warn where parameters, of shape (n, params), are far from unit scale once a network has standardised them."""
    found = [node for node in jax.tree.leaves(model, is_leaf=_is_standardisation) if _is_standardisation(node)]
    if not found:
        return
    mean, std = (np.asarray(part.value, np.float64) for part in (found[0].mean, found[0].std))
    z = (np.asarray(params, np.float64) - mean) / std
    size = np.sqrt(np.mean(z**2, axis=0))
    if np.any(size > 10):
        warnings.warn(
            f"{call}: the params have the root mean squares {np.array2string(size, precision=3)} once standardised by "
            "the network, which takes them to be about 1; give it their statistics, as sgm.ScoreModel(network, "
            "data=data) or sgm.nn.with_statistics(network, mean, std).",
            stacklevel=3,
        )


def _is_standardisation(node):
    return isinstance(node, Standardisation)


def _is_absent(cond):
    return all(getattr(cond, name, None) is None for name in ("params", "label", "image"))


def _to_floating(x):
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def _where_dropped(cond, null, part):
    dropped = getattr(cond, "dropped", None)
    return part if dropped is None else jnp.where(dropped, null, part)


def _listed(names):
    return " and ".join(f"`{name}`" for name in names) if names else "no parts"
