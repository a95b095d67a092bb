"""What the calls that are given examples have in common before they compute."""

import math
from typing import Any, NamedTuple

import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import (
    check_at_least,
    check_examples,
    check_finite,
    check_key,
    check_precision,
    trace_floats,
    trace_process,
)
from sgm.model.base import AbstractModel, check_process_and_model, check_pure_noise
from sgm.model.per_example import Own, separate
from sgm.nn.condition import Condition, check_density, check_values, flat_condition
from sgm.parallel.devices import mesh_for, replicate
from sgm.sde.base import AbstractSDE


class Prepared(NamedTuple):
    """The arguments of a call, checked, with one batch axis, on their devices.

    Arguments:
        sde: Process, whose numbers are arrays.
        model: Model, whose numbers are arrays.
        x: Standardised examples, of shape (n, *model.shape).
        keys: Key of each example; None without a key.
        own: What each example has of its own: its condition, and numbers of the model.
        cond: Condition that holds for all.
        mesh: Devices; None for the one that holds the arrays.
        batch: Batch axes of the call.
    """

    sde: AbstractSDE
    model: AbstractModel
    x: Float[Array, "n ..."]
    keys: PRNGKeyArray | None
    own: Own
    cond: Condition | None
    mesh: Mesh | None
    batch: tuple[int, ...]


def prepare(
    call: str, sde: AbstractSDE, model: AbstractModel, x: Any, key: PRNGKeyArray | None, cond: Any, mesh: Mesh | None
) -> Prepared:
    """Check the arguments of a call, and bring them to the form of `Prepared`.

    Raises:
        ValueError: for entries of x or cond that are not finite, another shape or precision, no example at all, a
            condition that is not the model's, and a model that is not defined where the process ends.
        TypeError: for what is no process or no model.
    """
    check_process_and_model(call, sde, model)
    batch = check_examples(call, x, model.shape)
    check_precision(call, x)
    if key is not None:
        check_key(call, key)
    check_finite(call, x)
    check_values(call, cond)
    check_density(call, cond)
    check_pure_noise(call, sde, model)
    cond, cond_axis = flat_condition(call, model, cond, batch)
    n = math.prod(batch)
    check_at_least(call, "the number of examples", n)
    x, keys = model.units.standardise(x).reshape(n, *model.shape), None if key is None else jr.split(key, n)
    model, cond, own = separate(call, model, cond, cond_axis, n)
    sde, model = trace_process(sde), trace_floats(model)
    mesh = mesh_for(call, (sde, model, x, keys, own, cond), mesh)
    sde, model, x, keys, own, cond = replicate((sde, model, x, keys, own, cond), mesh)
    return Prepared(sde, model, x, keys, own, cond, mesh, batch)
