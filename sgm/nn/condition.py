"""What a model is conditioned on."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int, Num


def _to_array(part: ArrayLike | list | None) -> Any:
    return None if part is None else jnp.asarray(part)


class Condition(eqx.Module):
    """The condition of one example, each part optional; a batch of conditions has its leading axes on every part.

    Parts may be given as anything that `jnp.asarray` takes.

    Arguments:
        params: Vector of parameters, shape `(params,)`, in their own units.
        label: Class index, shape `()`.
        image: Image, shape `(height, width, channels)`, on the grid of the data or another.
        dropped: Truth value, shape `()`; where true, the network's learned null stands in place of all other parts.

    Example:
        >>> cond = sgm.Condition(params=[0.3, 0.8])
    """

    params: Num[Array, "*batch params"] | None = eqx.field(default=None, converter=_to_array)
    label: Int[Array, "*batch"] | None = eqx.field(default=None, converter=_to_array)
    image: Num[Array, "*batch height width channels"] | None = eqx.field(default=None, converter=_to_array)
    dropped: Bool[Array, "*batch"] | None = eqx.field(default=None, converter=_to_array)

    def batch_axes(self) -> set[tuple[int, ...]]:
        """The leading axes of each part that is there."""
        parts = ((self.params, 1), (self.label, 0), (self.image, 3), (self.dropped, 0))
        return {part.shape[: part.ndim - rank] for part, rank in parts if part is not None}


def flat_condition(
    call: str, model: Any, cond: Condition | None, batch: tuple[int, ...]
) -> tuple[Condition | None, Literal[0] | None]:
    """`cond` with its batch axes made one, and the axis to vmap over: None where it has none and holds for all.

    Raises:
        TypeError: for what is no condition.
        ValueError: where it is not what the model was built for, or of another batch.
    """
    if not isinstance(cond, Condition | None):
        raise TypeError(f"{call}: cond is a {type(cond).__name__}; pass a Condition(params=..., label=..., image=...).")
    if model.conditioning is not None:
        model.conditioning.check(call, cond)
    axes = cond.batch_axes() if cond is not None else set()
    if axes <= {()}:
        return cond, None
    if axes != {batch}:
        raise ValueError(
            f"{call}: the parts of cond have batch axes {sorted(axes)}, but the examples have {batch}; "
            "give every part those axes, or none of them any."
        )
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[len(batch) :]), cond), 0


def condition_from(fields: Mapping[str, ArrayLike]) -> Condition | None:
    """The condition of a data set's record, None where it has no fields."""
    return Condition(**fields) if fields else None
