"""Parameters of a prior and what a simulator makes of them: pairs to train a posterior on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count, check_instance
from sgm.data.arrays import Arrays
from sgm.data.base import Record
from sgm.data.simulated import AbstractSimulated
from sgm.data.simulator import AbstractSimulator, shape_of_draw
from sgm.model.analytic import AbstractAnalyticModel
from sgm.nn.conditioning import Conditioning
from sgm.nn.units import Units

_AT_ONCE = 1024


@runtime_checkable
class Prior(Protocol):
    """A distribution of parameters, such as an exact model."""

    def sample(self, key: Any, n: int) -> Array:
        """Draw `n` independent thetas, along the first axis."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Simulations(AbstractSimulated):
    """Pairs of parameters theta, which are the examples, and observations x, which are their condition "params".

    A model of theta that is trained on them, conditioned on x, is the posterior p(theta | x). Every batch is simulated
    afresh, 1024 simulations at a time. Units, and the statistics of x, are fitted on 10,000 simulations.

    Arguments:
        simulator: Function `simulator(key, theta)` of JAX, which draws x, a vector or a number, given one theta of the
            shape of an example. All randomness is that of its key. Files and flags name an `AbstractSimulator`.
        prior: Distribution of theta, whose `sample(key, n)` gives n independent draws: an exact model such as
            `sgm.model.Uniform`, or an object of one's own. Where they are numbers, an example is a vector of one entry.

    Raises:
        TypeError: for a simulator or a `sample` that is no function of JAX or of other arguments, and for a prior
            without `sample`.
        ValueError: for a simulator or a prior that fails or that draws by np.random, which would be frozen at its first
            numbers, and for an x that is no vector or number; when simulated, for theta or x that are not finite, and
            for an entry of x that is constant.

    Example:
        >>> prior = sgm.model.Uniform((0.0, 0.0), (1.0, 1.0))
        >>> data = Simulations(lambda key, theta: theta + 0.1 * jax.random.normal(key, (2,)), prior)
        >>> theta, fields = data.batch(0, 128, seed=0)
    """

    simulator: AbstractSimulator | Callable[[PRNGKeyArray, Array], Array]
    prior: AbstractAnalyticModel | Prior

    def __post_init__(self):
        remedy = "pass a function simulate(key, theta), or an instance of a subclass of sgm.data.AbstractSimulator"
        check_instance("Simulations", "simulator", self.simulator, Callable, remedy=remedy)
        check_instance("Simulations", "prior", self.prior, Prior, "sgm.model.Uniform(low, high)")
        found = self._observation
        if len(found.shape) > 1:
            raise ValueError(
                f"Simulations: the simulator gives x of shape {found.shape}; let it give a vector, as x.reshape(-1) or "
                "numbers that sum x up, or pass simulated images as sgm.data.Arrays(theta, image=x)."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return self._example.shape

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(params=self._observation.size)

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self._statistics

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n *shape"], dict[str, Array]]:
        key_theta, key_x = jax.random.split(key)
        theta = self.prior.sample(key_theta, n).reshape(n, *self.shape)
        of_one = lambda each: self.simulator(*each)  # noqa: E731
        x = jax.lax.map(of_one, (jax.random.split(key_x, n), theta), batch_size=_AT_ONCE)
        theta, x = theta.astype(jnp.float32), x.astype(jnp.float32)
        return theta, {"params": x.reshape(n, -1)}

    def rows(self, split: str, start: int, stop: int) -> Record:
        return _checked(super().rows(split, start, stop))

    def batch(self, step: int, batch_size: int, seed: int) -> Record:
        return _checked(super().batch(step, batch_size, seed))

    def fixed(self, key: PRNGKeyArray, n: int, held_out: float = 0.1) -> Arrays:
        """A fixed number of simulations, for a simulator that costs more than training does.

        Arguments:
            key: Key of the simulations.
            n: Number of simulations.
            held_out: Share of them that is held out as the split "test".

        Returns:
            `Arrays(theta, params=x)`.

        Raises:
            ValueError: for n < 1, and theta or x that are not finite, or that no model can be trained on.
        """
        n = check_count("Simulations.fixed", "n", n)
        drawn = jax.jit(self.simulate, static_argnums=1)(key, n)
        theta, fields = _checked(jax.tree.map(np.asarray, drawn))
        return Arrays(theta, params=fields["params"], held_out=held_out)

    @functools.cached_property
    def _example(self) -> jax.ShapeDtypeStruct:
        given = (jax.random.key(0), 3)
        drawn = shape_of_draw("Simulations", "prior.sample", "sample(key, n)", self.prior.sample, *given)
        if drawn.shape[:1] != (3,):
            raise ValueError(
                f"Simulations: prior.sample(key, 3) gives theta of shape {drawn.shape}; let it give n draws along the "
                "first axis."
            )
        return jax.ShapeDtypeStruct(drawn.shape[1:] or (1,), drawn.dtype)

    @functools.cached_property
    def _observation(self) -> jax.ShapeDtypeStruct:
        given = (jax.random.key(0), self._example)
        done = "or pass simulations that are done as sgm.data.Arrays(theta, params=x)"
        form = "simulator(key, theta)"
        return shape_of_draw("Simulations", "the simulator", form, self.simulator, *given, otherwise=done)

    @functools.cached_property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        x = self.rows("train", 0, self.size("train"))[1]["params"]
        constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
        if len(constant):
            place = int(constant[0])
            raise ValueError(
                f"Simulations: entry {place} of x is constant (= {x[0, place]:.6g}), and tells nothing of theta; leave "
                "it out of what the simulator gives."
            )
        units = Units.fit(x)
        return np.asarray(units.mean.value, np.float32), np.asarray(units.std.value, np.float32)


def _checked(record: Record) -> Record:
    """The record. Raise ValueError for theta or x that are not finite."""
    theta, x = record[0], record[1]["params"]
    for what, values in (("prior gives theta", theta), ("simulator gives x", x)):
        wrong = np.flatnonzero(~np.all(np.isfinite(values.reshape(len(values), -1)), axis=1))
        if len(wrong):
            place = int(wrong[0])
            raise ValueError(
                f"Simulations: the {what} that is not finite in {len(wrong)} of {len(values)} draws, the first with "
                f"theta = {theta[place]} and x = {x[place]}; mend it there, or leave such theta out of the prior."
            )
    return record
