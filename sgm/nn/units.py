"""The affine map between the data's own units and the coordinates in which a process acts."""

import math
from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sgm.checks import is_traced
from sgm.nn.frozen import Frozen


class Units(eqx.Module):
    """x = mean + std z, where x is in the data's own units and z is standardised.

    A model has units, which are fitted on its training data, saved with it and never trained. Without arguments they
    are those of standardised data, x = z.

    Arguments:
        mean: Mean of the data, broadcast to the trailing axes of an example: one number, or one for each channel of an
            image or column of a table.
        std: Standard deviation of the data, as the mean.

    Raises:
        ValueError: for a `std` that is not positive, or numbers that are not finite.

    Example:
        >>> units = Units(mean=3.0, std=0.4)
        >>> units.restore(units.standardise(jnp.asarray([3.4])))
        Array([3.4], dtype=float32)
    """

    mean: Frozen
    std: Frozen

    def __init__(self, mean: ArrayLike = 0.0, std: ArrayLike = 1.0):
        if not is_traced((mean, std)):
            if not np.all(np.isfinite(mean)):
                raise ValueError(f"Units: mean = {mean}; pass finite numbers.")
            if not np.all(np.isfinite(std) & (np.asarray(std) > 0)):
                raise ValueError(f"Units: std = {std}; pass finite numbers above 0.")
        dtype = jnp.result_type(float)
        self.mean, self.std = Frozen(jnp.asarray(mean, dtype)), Frozen(jnp.asarray(std, dtype))

    @classmethod
    def of_levels(cls, count: int) -> "Units":
        """Units of grey levels 0 ... count - 1: level k fills [k - 1/2, k + 1/2), and all levels fill [-1, 1) of z."""
        return cls((count - 1) / 2, count / 2)

    @classmethod
    def fit(
        cls, x: Float[np.ndarray, "n *shape"] | Iterable[Float[np.ndarray, "_ *shape"]], missing: bool = False
    ) -> "Units":
        """Mean and standard deviation of examples, for each channel or column, the last axis.

        Arguments:
            x: Examples along the first axis, or an iterator of such arrays, of which one is held at a time.
            missing: Whether entries that are nan are missing, and left out.

        Raises:
            ValueError: for other entries that are not finite, and for a channel or column that is constant.
        """
        zero = np.zeros(())
        count, mean, square, low, high = zero, zero, zero, zero + np.inf, zero - np.inf
        for chunk in [x] if isinstance(x, np.ndarray | jax.Array) else x:
            part = np.asarray(chunk, np.float64)
            part = part.reshape(-1, part.shape[-1])
            there = ~np.isnan(part) if missing else np.ones(part.shape, bool)
            if not np.all(np.isfinite(part[there])):
                place = int(np.argwhere(there & ~np.isfinite(part))[0][1])
                raise ValueError(f"Units.fit: column or channel {place} has entries that are not finite; mend them.")
            # Chan, Golub and LeVeque 1979: moments of a union, in which nothing cancels.
            size = np.sum(there, axis=0)
            total = np.maximum(count + size, 1)
            own = np.sum(part, axis=0, where=there) / np.maximum(size, 1)
            square = square + np.sum((part - own) ** 2, axis=0, where=there)
            square = square + (own - mean) ** 2 * (count * size / total)
            mean, count = mean + (own - mean) * (size / total), count + size
            low = np.minimum(low, np.min(part, axis=0, initial=np.inf, where=there))
            high = np.maximum(high, np.max(part, axis=0, initial=-np.inf, where=there))
        if not np.any(count):
            raise ValueError("Units.fit: there are no examples; pass one or more.")
        if not np.all(count):
            raise ValueError(f"Units.fit: column or channel {np.argmin(count)} has no value at all; leave it out.")
        constant = np.flatnonzero(low == high)
        if len(constant):
            raise ValueError(
                f"Units.fit: column or channel {constant[0]} is constant (= {low[constant[0]]:.6g}), so that it has no "
                "density; leave it out."
            )
        return cls(mean, np.sqrt(square / count))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of mean and standard deviation, broadcast to each other."""
        return np.broadcast_shapes(self.mean.value.shape, self.std.value.shape)

    @property
    def is_identity(self) -> bool:
        """Whether x = z. Raises where the units are traced, whose values cannot be looked at."""
        mean, std = self._on_host()
        return bool(np.all(mean == 0) and np.all(std == 1))

    def standardise(self, x: Float[Array | np.ndarray, "*batch_and_shape"]) -> Float[Array, "*batch_and_shape"]:
        """z = (x - mean) / std. NumPy arrays are standardised in double precision, so that no digit is lost."""
        if isinstance(x, np.ndarray) and not is_traced(self):
            return jnp.asarray(self.standardised(x))
        mean, std = self._like(x := jnp.asarray(x))
        return (x - mean) / std

    def standardised(self, x: Float[np.ndarray, "*batch_and_shape"]) -> Float[np.ndarray, "*batch_and_shape"]:
        """`standardise` on the host, from double to single precision."""
        mean, std = self._on_host()
        dtype = x.dtype if x.dtype == np.float32 else mean.dtype
        return ((np.asarray(x, np.float64) - mean) / std).astype(dtype)

    def restore(self, z: Float[ArrayLike, "*batch_and_shape"]) -> Float[Array, "*batch_and_shape"]:
        """x = mean + std z."""
        mean, std = self._like(z := jnp.asarray(z))
        return mean + std * z

    def log_volume(self, shape: tuple[int, ...]) -> Float[ArrayLike, ""]:
        """The sum of log std over the entries of an example of `shape`: log p(z) = log p(x) + log_volume, in nats."""
        copies = math.prod(shape) / math.prod(self.std.value.shape)
        if is_traced(self):
            return copies * jnp.sum(jnp.log(self.std.value))
        return copies * float(np.sum(np.log(self._on_host()[1], dtype=np.float64)))

    def _like(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation in the precision of x."""
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else self.mean.value.dtype
        return self.mean.value.astype(dtype), self.std.value.astype(dtype)

    def _on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, of units that are not traced, as NumPy arrays, within a trace as well."""
        with jax.ensure_compile_time_eval():
            return np.asarray(self.mean.value), np.asarray(self.std.value)


def check_units(call: str, units: Units, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the units can be broadcast to the trailing axes of examples of `shape`."""
    own = units.shape
    if len(own) > len(shape) or any(ours not in (1, axis) for ours, axis in zip(own[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"{call}: the units have shape {own}, but the examples {shape}; pass one number, or one for each entry of "
            f"the last axis, of shape {shape[-1:]}."
        )
