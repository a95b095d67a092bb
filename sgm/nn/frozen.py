"""Numbers that belong to a network and that no optimiser can reach."""

import jax
import jax.numpy as jnp
from equinox import Module
from jaxtyping import Array, ArrayLike, Float, UInt

_FLOATS = {"uint32": jnp.float32, "uint64": jnp.float64}


class Frozen(Module):
    """Real numbers that are saved with a module and never trained.

    The leaf in the pytree is the array of the numbers' bits, as unsigned integers. `equinox.is_inexact_array`, by which
    a training loop chooses what it trains, decays and averages, passes it over, inside `jax.jit` as well as outside. A
    numpy array would not do: inside `jax.jit` it is a tracer like any weight.

    Arguments:
        value: float32 or float64, of any shape.

    Raises:
        TypeError: for numbers of another type.

    Example:
        >>> eqx.filter(Frozen(jnp.asarray([3.0])), eqx.is_inexact_array).bits is None
        True
    """

    bits: UInt[Array, "..."]

    def __init__(self, value: ArrayLike):
        value = jnp.asarray(value)
        bits = next((bits for bits, real in _FLOATS.items() if value.dtype == real), None)
        if bits is None:
            raise TypeError(f"Frozen: the value has dtype {value.dtype}; pass float32 or float64.")
        self.bits = jax.lax.bitcast_convert_type(value, jnp.dtype(bits))

    @property
    def value(self) -> Float[Array, "..."]:
        """The numbers, equal to the bit to those that were given.

        Raises:
            TypeError: where arithmetic was done on the bits.
        """
        if str(self.bits.dtype) not in _FLOATS:
            raise TypeError(
                f"Frozen: the bits have become {self.bits.dtype}, as if they were trained or averaged; choose what a "
                "training loop changes by equinox.is_inexact_array, not is_array."
            )
        return jax.lax.bitcast_convert_type(self.bits, _FLOATS[str(self.bits.dtype)])
