"""Numbers of a model that each example has of its own."""

from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Shaped

from sgm.nn.condition import Condition


class PerExample(eqx.Module):
    """A number or array of a model, one for each example of a call, as a guidance weight or an observation.

    `sgm.sample`, `sgm.log_prob` and the other calls give each example its own. Elsewhere, as in `model.predict`, it
    raises ValueError: map over models of one value each there.

    Arguments:
        value: Values along the leading axis, one for each example.

    Example:
        >>> model = ClassifierFree(model, weight=PerExample(jnp.linspace(0.0, 3.0, 8)))
        >>> x = sgm.sample(sde, model, key, 8, cond=sgm.Condition(label=3), method=sgm.DDIM(10))
    """

    value: Shaped[Array, "n ..."]


def number_of(call: str, value: Any) -> Any:
    """A number of a model where it is evaluated. Raise ValueError for those of many examples."""
    if isinstance(value, PerExample):
        raise ValueError(
            f"{call}: it has values of shape {value.value.shape}, one for each example, but is evaluated for one; give "
            "it to a call on a batch, such as sgm.sample, or pass one value."
        )
    return value


class Own(eqx.Module):
    """What each example of a call has of its own, beside what they share.

    Arguments:
        cond: Its condition; None where one holds for all.
        model: Leaves of the model that are its own; None in the place of all others.
    """

    cond: Condition | None
    model: Any

    def join(self, model: Any, cond: Condition | None) -> tuple[Any, Condition | None]:
        """The model and the condition of one example, from the shared ones."""
        return eqx.combine(model, self.model), cond if self.cond is None else self.cond


def separate(
    call: str, model: Any, cond: Condition | None, cond_axis: Literal[0] | None, n: int | None
) -> tuple[Any, Condition | None, Own]:
    """Separate what all examples of a call share from what each has of its own.

    Arguments:
        call: Name of the call.
        model: Model, perhaps with numbers that are `PerExample`.
        cond: Condition.
        cond_axis: 0 where each example has a condition, None where one holds for all, as `flat_condition` says.
        n: Number of examples; None for one without a batch axis.

    Returns:
        The shared leaves of the model, the shared condition, and what each example has of its own.

    Raises:
        ValueError: for values of another number of examples than `n`, or of a single one, where `n` is None.
    """
    leaves = jax.tree.leaves(model, is_leaf=_is_own)
    for leaf in filter(_is_own, leaves):
        if n is None or leaf.value.shape[:1] != (n,):
            examples = "one example without a batch axis" if n is None else f"{n} examples"
            raise ValueError(
                f"{call}: the model has values of shape {leaf.value.shape}, one for each example, but the call is of "
                f"{examples}; pass as many."
            )
    shared = jax.tree.map(lambda leaf: None if _is_own(leaf) else leaf, model, is_leaf=_is_own)
    own = jax.tree.map(lambda leaf: leaf.value if _is_own(leaf) else None, model, is_leaf=_is_own)
    return (shared, None, Own(cond, own)) if cond_axis == 0 else (shared, cond, Own(None, own))


def _is_own(leaf):
    return isinstance(leaf, PerExample)
