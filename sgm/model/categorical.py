"""Models of the categories under the noise of a chain."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from sgm.checks import check_array, check_at_least, check_count, check_instance, is_traced
from sgm.model.reverse import AbstractReverseModel
from sgm.model.score_model import Described, check_network
from sgm.nn.condition import Condition
from sgm.nn.conditioning import with_statistics
from sgm.nn.network import AbstractLevelNetwork
from sgm.sde.categorical import AbstractCategoricalChain, Categories
from sgm.sde.level import LARGEST_LEVEL
from sgm.types import Scalar


class AbstractCategoricalModel(AbstractReverseModel):
    """A model of x_0 given x_t, for a chain of categories (see `sgm.sde.AbstractCategoricalChain`)."""

    categories: eqx.AbstractVar[int]
    """Number of categories of an entry of x_0."""
    states: eqx.AbstractVar[int]
    """Number of states of an entry of x_t."""

    @abstractmethod
    def predict(
        self, level: Scalar, x: Categories, cond: Condition | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*shape categories"]:
        """The logits of x_0: log p(x_0 | x_t) - log q(x_t | x_0) of each category, up to a number of the entry.

        Arguments:
            level: Noise level log(sqrt((1 - a_t) / a_t)).
            x: State x_t, of shape `self.shape`.
            cond: Condition of the example.
            key: Key of the dropout, which is switched off without one.
        """

    @property
    def takes_levels(self):
        return True

    def check_process(self, call, process):
        check_instance(call, "sde", process, AbstractCategoricalChain, f"sgm.BinomialChain(), for a {_name(self)}")
        found, wanted = (process.categories, process.states), (self.categories, self.states)
        if found != wanted:
            raise ValueError(
                f"{call}: {_name(process)} has {found[0]} categories and {found[1]} states, but the {_name(self)} is "
                f"of {wanted[0]} and {wanted[1]}; pass a model that is built with this chain."
            )

    def check_levels(self, call, levels):
        if levels != self.categories:
            data = "are real numbers" if levels is None else f"have {levels} levels"
            raise ValueError(
                f"{call}: the data {data}, but the model is of {self.categories} categories; pass a chain of as many "
                "categories as the data have levels, and a model that is built with it."
            )

    def check_batch(self, call, x):
        return check_categories(call, x, self.shape, self.states)

    def as_seen(self, call, x):
        check_categories(call, x, self.shape, self.categories)
        return jnp.asarray(x)

    def posterior(
        self, chain: AbstractCategoricalChain, k: int, x: Integer[Array, "*shape"], cond: Condition | None = None
    ) -> Float[Array, "*shape categories"]:
        """p(x_0 | x_k = x) of each category of each entry, for one example `x` after k = 1 ... N steps."""
        self.check_process("posterior", chain)
        if check_categories("posterior", x, self.shape, self.states):
            raise ValueError(
                f"posterior: x has shape {x.shape}; pass one example, of shape {self.shape}, or use jax.vmap."
            )
        if check_count("posterior", "k", k) > chain.steps:
            raise ValueError(f"posterior: k = {k}; pass a step of the chain, 1 <= k <= {chain.steps}.")
        level = jnp.asarray(chain.every_step.level[k - 1])
        logs = self.predict(level, jnp.asarray(x), cond) + chain.log_likelihood(level, jnp.asarray(x))
        return jax.nn.softmax(logs, axis=-1)


class AbstractExactCategoricalModel(AbstractCategoricalModel):
    """The exact p(x_0 | x_t) of each entry of known data, under the noise of a `chain`."""

    chain: eqx.AbstractVar[AbstractCategoricalChain]
    """Chain of the noise. A model is exact under all chains with its target, whatever their betas are."""

    @property
    def categories(self):
        return self.chain.categories

    @property
    def states(self):
        return self.chain.states

    def check_process(self, call, process):
        super().check_process(call, process)
        if not np.array_equal(self.chain.target, process.target):
            raise ValueError(
                f"{call}: the model is exact for {_name(self.chain)} with the target {self.chain.target}, but the "
                f"chain draws from {process.target}; build the model with this chain."
            )


def numbers_per_entry(states: int) -> int:
    """Numbers by which a network is told an entry: one of two states, -1 or 1, and else one for each state."""
    return 1 if states == 2 else states


def network_shape(shape: tuple[int, ...], states: int) -> tuple[int, ...]:
    """Shape for which a network of categorical examples is built: its last axis has all numbers of its entries.

    Arguments:
        shape: Shape of one example.
        states: Number of states of an entry.

    Returns:
        The shape of the network's input and output.

    Example:
        >>> network_shape((20, 1), 27), network_shape((28, 28, 1), 2)
        ((20, 27), (28, 28, 1))
        >>> network = MLP(network_shape((20, 1), 27), key=key)  # for CategoricalModel(network, 27, shape=(20, 1))
    """
    return (*shape[:-1], shape[-1] * numbers_per_entry(states))


class CategoricalModel(AbstractCategoricalModel):
    """A network as a model of categories. Its output is logits for the categories of x_0.

    `network(level, u, cond, key=None)` acts on one example, with u and the output of `network_shape(shape, states)`. Of
    two states u is -1 and 1, and the output is the logit of 1 less that of 0. Of more, u is 1 for the state of an
    entry and 0 for the others, all states of an entry side by side along the last axis; the output is laid out
    likewise. The level is clipped to -20 ... 20, so that it is finite for pure noise too.

    The logits are what p(x_0 | x_t) has beyond q(x_t | x_0). So a network that gives zeros is right for entries that
    are independent and have all categories as often.

    Arguments:
        network: Network.
        categories: Number of categories of an entry of x_0.
        states: Number of states of an entry of x_t; by default as many. One more with a mask.
        shape: Shape of one example. Required where `data` is not given.
        data: Data set on which it is trained, for its shape and the statistics of its parameters.

    Raises:
        TypeError: for a network that cannot be called so, and for neither `shape` nor `data`.
        ValueError: for a network of another shape; when first called, for an output of another shape.

    Example:
        >>> network = MLP(network_shape((20,), 2), key=jr.key(0))
        >>> model = CategoricalModel(network, 2, shape=(20,))

    Reference: Austin et al. 2021 (D3PM, arXiv:2107.03006, section 3.3), whose logits are these and log q(x_t | x_0).
    """

    network: Callable
    categories: int = eqx.field(static=True)
    states: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        network: AbstractLevelNetwork | Callable,
        categories: int,
        states: int | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        data: Described | None = None,
    ):
        name = type(self).__name__
        self.categories = check_count(name, "categories", categories, 2)
        self.states = self.categories if states is None else check_count(name, "states", states, self.categories)
        if data is None:
            check_instance(name, "shape", shape, tuple, "(20,), or the data set as data=")
            check_at_least(name, "the number of axes of an example", len(shape or ()))
        elif shape is not None and tuple(shape) != tuple(data.shape):
            raise ValueError(f"{name}: shape = {shape}, but the data are of {data.shape}; leave shape out.")
        shape = tuple(data.shape) if data is not None else shape
        assert shape is not None
        check_network(name, network, network_shape(shape, self.states))
        statistics = None if data is None else data.statistics()
        self.network = network if statistics is None else with_statistics(network, *statistics)
        self.shape = tuple(shape)

    @property
    def conditioning(self):
        return getattr(self.network, "conditioning", None)

    def predict(self, level, x, cond=None, key=None):
        shape = network_shape(self.shape, self.states)
        is_bit = self.states == 2
        told = 2 * x - 1 if is_bit else x[..., None] == jnp.arange(self.states)
        seen = jnp.clip(level, -LARGEST_LEVEL, LARGEST_LEVEL)
        output = self.network(seen, told.reshape(shape).astype(seen.dtype), cond, key=key)
        if jnp.shape(output) != shape:
            raise ValueError(
                f"CategoricalModel: the network's output has shape {jnp.shape(output)}, but for examples of shape "
                f"{self.shape} with {self.states} states it reads {shape}; build the network for that shape, with one "
                "output."
            )
        if is_bit:
            return jnp.stack([jnp.zeros_like(output), output], axis=-1)
        return output.reshape(*self.shape, self.states)[..., : self.categories]


def check_categories(call: str, x, shape: tuple[int, ...], states: int) -> tuple[int, ...]:
    """The batch axes of `x`, whose trailing axes must be the model's `shape`, of integers from 0 to states - 1."""
    check_array(call, "x", x)
    batch = x.shape[: max(0, x.ndim - len(shape))]
    if x.shape != batch + shape:
        raise ValueError(
            f"{call}: x has shape {x.shape}, but the model is of examples of shape {shape}; pass one example, or batch "
            "axes in front of that shape."
        )
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{call}: x has dtype {x.dtype}, but the model is of categories; pass integers.")
    if not is_traced(x) and x.size:
        entries = np.asarray(x)
        least, most = int(np.min(entries)), int(np.max(entries))
        if least < 0 or most >= states:
            raise ValueError(f"{call}: x has entries in {least} ... {most}; pass integers from 0 to {states - 1}.")
    return batch


def _name(part):
    return type(part).__name__
