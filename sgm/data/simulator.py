"""What a simulator is."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
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


def observation_of(
    call: str, simulator: Callable[[PRNGKeyArray, Array], Array], theta: jax.ShapeDtypeStruct, remedy: str
) -> jax.ShapeDtypeStruct:
    """Find the shape and type of what a simulator gives for one theta, without a simulation.

    Arguments:
        call: Name of what was given the simulator.
        simulator: Function `simulator(key, theta)` of JAX.
        theta: Shape and type of theta.
        remedy: What else can be done with a simulator that is no function of JAX.

    Returns:
        The shape and type of the observation.

    Raises:
        TypeError: for a simulator that is no function of JAX, or gives something else than one array.
    """
    try:
        found = jax.eval_shape(lambda theta: simulator(jax.random.key(0), theta), theta)
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            f"{call}: the simulator looks at the values of theta, and so is no function of JAX; write it with "
            f"jax.numpy, or {remedy}."
        ) from error
    name, remedy = "what the simulator gives", "let it give one array, as jnp.stack(x)"
    check_instance(call, name, found, jax.ShapeDtypeStruct, remedy=remedy)
    return found
