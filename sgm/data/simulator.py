"""What a simulator is, and the check that a function of the user's is one of JAX."""

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_instance


class AbstractSimulator(eqx.Module):
    """A simulator with a name, which flags and files can choose. Elsewhere a function of (key, theta) does as well."""

    @abstractmethod
    def __call__(self, key: PRNGKeyArray, theta: Float[Array, "..."]) -> Float[Array, "..."]:
        """Draw x given theta.

        Arguments:
            key: Key of the draw.
            theta: Parameters, of the shape of one example, in the data's units.

        Returns:
            An observation, of the shape and in the units of the condition.
        """


def shape_of_draw(
    call: str, name: str, form: str, function: Callable[..., Any], *arguments: Any, otherwise: str = ""
) -> jax.ShapeDtypeStruct:
    """The shape of what a random function gives, which is traced, not run.

    Arguments:
        call: Name of the call, for errors.
        name: What the function is called in errors, as "the simulator".
        form: How it is to be called, as "simulator(key, theta)".
        function: Function.
        arguments: Its arguments: arrays, their shapes as `jax.ShapeDtypeStruct`, and integers, which are not traced.
        otherwise: Another remedy for a function that is not of JAX, as "or pass ...".

    Raises:
        TypeError: for a function of other arguments, one that is not of JAX, and one that gives other than one array.
        ValueError: for a function that fails for these arguments, and one whose numbers are not drawn by its key.
    """
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{call}: {name} does not take its arguments ({error}); write it as {form}.") from None
    whole = tuple(place for place, argument in enumerate(arguments) if isinstance(argument, int))
    traces = []
    # In another precision of products nothing that was traced before is found again, such as what jax.jit keeps.
    for precision in ("high", "highest"):
        try:
            with jax.default_matmul_precision(precision):
                trace = jax.make_jaxpr(lambda *given: function(*given), whole, return_shape=True)
                traces.append(trace(*arguments))
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            raise TypeError(
                f"{call}: {name} looks at the values of what it is given, and so is no function of JAX; write it with "
                f"jax.numpy and jax.random{', ' * bool(otherwise)}{otherwise}."
            ) from error
        except (TypeError, ValueError, IndexError) as error:  # JAX raises each of them for a wrong shape.
            last, given = re.findall(r"\w+", form)[-1], arguments[-1]
            is_what = f"= {given}" if isinstance(given, int) else f"of shape {given.shape}"
            number = f", with {last}[0] for the number in it" if np.shape(given) == (1,) else ""
            said = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"{call}: {name} fails for {last} {is_what} ({type(error).__name__}: {said}); let {form} take "
                f"that{number}."
            ) from error
    first, again = ([_bits(number) for number in _numbers(jaxpr.jaxpr, jaxpr.consts)] for jaxpr, _ in traces)
    if first != again:
        raise ValueError(
            f"{call}: {name} draws other numbers when it is traced again, as np.random does, and all draws would have "
            "those of the first; draw them by its key, as jax.random.normal(key)."
        )
    found = traces[0][1]
    remedy = "let it give one array, as jnp.stack(x)"
    check_instance(call, f"what {name} gives", found, jax.ShapeDtypeStruct, remedy=remedy)
    return found


def _numbers(jaxpr: Jaxpr, consts: Any = ()) -> Iterator[Any]:
    """The numbers that stand in a traced function and in those that it calls."""
    yield from consts
    for equation in jaxpr.eqns:
        yield from (entry.val for entry in equation.invars if isinstance(entry, Literal))
        for part in jax.tree.leaves(equation.params):
            if isinstance(part, ClosedJaxpr):
                yield from _numbers(part.jaxpr, part.consts)
            elif isinstance(part, Jaxpr):
                yield from _numbers(part)
            elif isinstance(part, int | float):
                yield part


def _bits(number):
    is_key = jnp.issubdtype(getattr(number, "dtype", float), jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(number) if is_key else number).tobytes()
