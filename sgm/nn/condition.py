"""What a model is conditioned on."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, Num

from sgm.checks import check_finite, is_traced


def _to_array(part: ArrayLike | list | None) -> Any:
    return None if part is None else jnp.asarray(part)


class Condition(eqx.Module):
    """The condition of one example, each part optional; a batch of conditions has its leading axes on every part.

    Parts may be given as anything that `jnp.asarray` takes.

    Arguments:
        params: Vector of parameters, shape `(params,)`, in their own units.
        label: Class index, shape `()`.
        image: Image, shape `(height, width, channels)`, on the grid of the data or another; a signal or a volume where
            the examples are such.
        observed: Entries of the example that are observed, of its shape and in its units; nan for all others, which are
            drawn given these. Of a model that is trained with a `sgm.training.AbstractMasking`.
        dropped: Truth value, shape `()`; where true, the network's learned null stands in place of all other parts.

    Example:
        >>> cond = sgm.Condition(params=[0.3, 0.8])
        >>> x = sgm.sample(sde, model, key, 8, cond=cond, method=sgm.DDIM(10))  # all eight at this condition
    """

    params: Num[Array, "*batch params"] | None = eqx.field(default=None, converter=_to_array)
    label: Int[Array, "*batch"] | None = eqx.field(default=None, converter=_to_array)
    image: Num[Array, "*batch_and_space channels"] | None = eqx.field(default=None, converter=_to_array)
    observed: Num[Array, "*batch variables"] | None = eqx.field(default=None, converter=_to_array)
    dropped: Bool[Array, "*batch"] | None = eqx.field(default=None, converter=_to_array)

    def batch_axes(self, conditioning: Any) -> set[tuple[int, ...]]:
        """The leading axes of each part that is there.

        Arguments:
            conditioning: What the model is conditioned on, `model.conditioning`. Where it knows no image, one has the
                axes height, width and channels.
        """
        image = getattr(conditioning, "image", None)
        axes = 3 if image is None else len(image)
        parts = ((self.params, 1), (self.label, 0), (self.image, axes), (self.observed, 1), (self.dropped, 0))
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
    axes = cond.batch_axes(model.conditioning) if cond is not None else set()
    if axes <= {()}:
        return cond, None
    if axes != {batch}:
        raise ValueError(
            f"{call}: the parts of cond have batch axes {sorted(axes)}, but the examples have {batch}; "
            "give every part those axes, or none of them any."
        )
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[len(batch) :]), cond), 0


def check_values(call: str, cond: Condition | None) -> None:
    """Raise ValueError for parts with entries that are not finite; nan among the observed means not observed."""
    if cond is None:
        return
    check_finite(call, dataclasses.replace(cond, observed=None), "cond")
    if cond.observed is not None and not is_traced(cond.observed) and np.any(np.isinf(np.asarray(cond.observed))):
        raise ValueError(f"{call}: cond.observed has infinite entries; pass finite ones, and nan for the unobserved.")


def check_density(call: str, cond: Condition | None) -> None:
    """Raise ValueError where entries are observed: together with these the others have no density."""
    if cond is not None and cond.observed is not None:
        raise ValueError(
            f"{call}: cond has `observed`, but an example with observed entries has no density; pass the model "
            "sgm.model.Unobserved(model, positions, values), which is of the others alone."
        )


def condition_from(fields: Mapping[str, ArrayLike]) -> Condition | None:
    """The condition of a data set's record, None where it has no fields."""
    return Condition(**fields) if fields else None
