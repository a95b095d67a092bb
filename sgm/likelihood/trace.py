"""Estimates of the divergence of a velocity field, the trace of its Jacobian J."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_at_least

Example = Float[Array, "*shape"]
Estimates = Float[Array, " estimates"]
Scalar = Float[Array, ""]


class AbstractTrace(eqx.Module):
    """A way to estimate tr J along a path, by products v . J v with probe vectors that are kept along it."""

    @abstractmethod
    def check_key(self, key: PRNGKeyArray | None) -> None:
        """Raise if the probes need a key and there is none."""

    @abstractmethod
    def probes(self, key: PRNGKeyArray | None, x: Example) -> Float[Array, "probes *shape"]:
        """The vectors v, each of the shape of `x`."""

    @abstractmethod
    def estimates(self, products: Float[Array, " probes"]) -> Estimates:
        """Independent estimates of tr J from the products v . J v."""

    @abstractmethod
    def combine(self, estimates: Estimates) -> tuple[Scalar, Scalar]:
        """The mean of the estimates and its standard error."""


class Exact(AbstractTrace):
    """tr J itself, by one Jacobian-vector product a dimension."""

    def check_key(self, key):
        pass

    def probes(self, key, x):
        return jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)

    def estimates(self, products):
        return jnp.sum(products, keepdims=True)

    def combine(self, estimates):
        return estimates[0], jnp.zeros_like(estimates[0])


class Hutchinson(AbstractTrace):
    """v . J v for `count` random sign vectors v: unbiased, and each probe is integrated separately.

    The standard error is that of the mean over probes, and nan for a single one.
    Source: Hutchinson 1990 (doi:10.1080/03610919008812866); Grathwohl et al. 2019 (FFJORD, arXiv:1810.01367).
    """

    count: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        check_at_least("Hutchinson", "count", self.count)

    def check_key(self, key):
        if key is None:
            raise ValueError(
                "log_prob: key is None, but Hutchinson draws random probes; "
                "pass key=jax.random.key(seed), or trace=sgm.Exact()."
            )

    def probes(self, key, x):
        assert key is not None
        return jr.rademacher(key, (self.count, *x.shape), x.dtype)

    def estimates(self, products):
        return products

    def combine(self, estimates):
        return jnp.mean(estimates), jnp.std(estimates, ddof=1) / self.count**0.5


def field_and_products(
    field: Callable[[Example], Example], x: Example, probes: Float[Array, "probes *shape"]
) -> tuple[Example, Float[Array, " probes"]]:
    """The field at `x` and the products v . J v of its Jacobian there with each probe v."""

    def contract(probe):
        value, tangent = jax.jvp(field, (x,), (probe,))
        return value, jnp.vdot(probe, tangent)

    return jax.vmap(contract, out_axes=(None, 0))(probes)
