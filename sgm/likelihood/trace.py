"""Estimates of the divergence of a velocity field, the trace of its Jacobian J, along a path.

Each is a sum or mean of products v . J v with probe vectors v that are kept along the path, so that it stays smooth.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.checks import check_count, check_instance
from sgm.random import normal, rademacher

Example = Float[Array, "*shape"]
Estimates = Float[Array, " estimates"]
Scalar = Float[Array, ""]

_ENTRIES = 2**18  # Of the vectors of one chunk, where none is given.


class AbstractTrace(eqx.Module):
    """A way to estimate tr J along a path, a `chunk` of products at a time, which sets the memory.

    As many examples are solved together as a chunk has room for, at least one; the others wait for them.
    """

    @property
    @abstractmethod
    def chunk(self) -> int | None:
        """How many products are taken at a time, over the examples that are solved together; None for 2^18 / D."""

    @abstractmethod
    def check(self, key: PRNGKeyArray | None, shape: tuple[int, ...]) -> None:
        """Raise if random probes need a key and there is none, or examples of `shape` do not fit."""

    @abstractmethod
    def products(self, shape: tuple[int, ...]) -> int:
        """The number of products with J of each evaluation."""

    @abstractmethod
    def draw(self, key: PRNGKeyArray | None, x: Example) -> Any:
        """The randomness of one path."""

    @abstractmethod
    def probe(self, drawn: Any, index: Int[Array, ""], x: Example) -> Example:
        """The vector v with this index, of the shape of `x`."""

    @abstractmethod
    def estimates(self, products: Float[Array, " products"]) -> Estimates:
        """What is integrated along the path."""

    @abstractmethod
    def combine(self, estimates: Estimates) -> tuple[Scalar, Scalar, Scalar]:
        """The integral of tr J, its standard error, and the degrees of freedom with which the latter is known."""

    def examples(self, shape: tuple[int, ...]) -> int:
        """How many examples of `shape` are solved together."""
        return max(1, self._chunk(shape) // self.products(shape))

    def along(
        self, field: Callable[[Example], Example], x: Example, drawn: Any
    ) -> tuple[Example, Float[Array, " products"]]:
        """The field at `x`, and the products v . J v of its Jacobian there with each probe."""
        count, chunk = self.products(x.shape), self._chunk(x.shape)
        if count <= chunk:

            def contract(index):
                probe = self.probe(drawn, index, x)
                value, tangent = jax.jvp(field, (x,), (probe,))
                return value, jnp.vdot(probe, tangent)

            return jax.vmap(contract, out_axes=(None, 0))(jnp.arange(count))
        value, jacobian = jax.linearize(field, x)

        def product(index):
            probe = self.probe(drawn, index, x)
            return jnp.vdot(probe, jacobian(probe))

        # Chunks of one length, so that they share a compiled body; what is left over in the last is thrown away.
        chunks = jnp.arange(math.ceil(count / chunk) * chunk).reshape(-1, chunk)
        return value, jax.lax.map(jax.vmap(product), chunks).reshape(-1)[:count]

    def _chunk(self, shape):
        return self.chunk or max(1, _ENTRIES // math.prod(shape))


class Exact(AbstractTrace):
    """tr J itself, by one Jacobian-vector product a dimension.

    Arguments:
        chunk: Number of products with J at a time, which sets the memory. None chooses 2^18 / D.

    Raises:
        TypeError: for a chunk that is not whole.
        ValueError: for a chunk below 1.

    Example:
        >>> Exact().products((32, 32, 3))  # with the Jacobian, in each evaluation of the divergence
        3072
        >>> metric = sgm.evaluation.LogLikelihood(trace=Exact(chunk=256))
    """

    chunk: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _check_chunk("Exact", self.chunk)

    def check(self, key, shape):
        pass

    def products(self, shape):
        return math.prod(shape)

    def draw(self, key, x):
        return None

    def probe(self, drawn, index, x):
        return jax.nn.one_hot(index, x.size, dtype=x.dtype).reshape(x.shape)

    def estimates(self, products):
        return jnp.sum(products, keepdims=True)

    def combine(self, estimates):
        return estimates[0], jnp.zeros_like(estimates[0]), jnp.full_like(estimates[0], jnp.inf)


class Hutchinson(AbstractTrace):
    """The mean of v . J v over `count` random vectors v, each integrated separately.

    With S the symmetric part of J, random signs ("rademacher") have the variance 2 sum_{i != j} S_ij^2, which leaves
    out the diagonal; normal vectors have 2 sum_ij S_ij^2.

    Arguments:
        count: Number of random vectors; two or more for a standard error.
        distribution: Distribution of their entries, "rademacher" (random signs) or "normal".
        chunk: Number of products with J at a time, which sets the memory. None chooses 2^18 / D.

    Raises:
        TypeError: for a count or a chunk that is not whole.
        ValueError: for a count or a chunk below 1, and another distribution.

    Example:
        >>> Hutchinson(16).products((32, 32, 3))
        16
        >>> metric = sgm.evaluation.LogLikelihood(trace=Hutchinson(16))

    Reference: Hutchinson 1990 (doi:10.1080/03610919008812866); Grathwohl et al. 2019 (FFJORD, arXiv:1810.01367).
    """

    count: int = eqx.field(static=True, default=4)
    distribution: Literal["rademacher", "normal"] = eqx.field(static=True, default="rademacher")
    chunk: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_count("Hutchinson", "count", self.count)
        if self.distribution not in ("rademacher", "normal"):
            given = getattr(self.distribution, "__name__", repr(self.distribution))
            raise ValueError(f'Hutchinson: distribution is {given}; pass the name "rademacher" or "normal".')
        _check_chunk("Hutchinson", self.chunk)

    def check(self, key, shape):
        _check_key("Hutchinson", key)

    def products(self, shape):
        return self.count

    def draw(self, key, x):
        assert key is not None
        draw = normal if self.distribution == "normal" else rademacher
        return draw(key, (self.count, *x.shape), x.dtype)

    def probe(self, drawn, index, x):
        return drawn[index]

    def estimates(self, products):
        return products

    def combine(self, estimates):
        stderr = jnp.std(jax.lax.stop_gradient(estimates), ddof=1) / self.count**0.5
        return jnp.mean(estimates), stderr, jnp.full_like(stderr, self.count - 1)


class Probing(AbstractTrace):
    """Hutchinson's estimate without the noise of entries near each other, for images and other grids.

    Entries whose indices agree modulo `strides` along every axis share a colour. A vector of random signs for each
    colour, zero elsewhere, gives sum_colours v . J v = tr J + sum over pairs of one colour: pairs of entries less than
    a stride apart, where J of an image is largest, add no noise. `Probing((2, 2, 1))` takes four products for each of
    `count` draws of the signs, `Probing((2, 2, 3))` twelve, which keep three channels apart as well. Strides as large
    as the axes are exact. The error needs a `count` of two or more.

    The products of different colours are independent; the degrees of freedom of their summed variances are Welch and
    Satterthwaite's.

    Arguments:
        strides: Distance, along each axis of an example, at which entries share a colour.
        count: Number of draws of the signs.
        chunk: Number of products with J at a time, which sets the memory. None chooses 2^18 / D.

    Raises:
        TypeError: for strides that are no tuple, and a stride, a count or a chunk that is not whole.
        ValueError: for a stride, a count or a chunk below 1.

    Example:
        >>> Probing((2, 2, 3), count=2).products((32, 32, 3))  # of 12 colours, twice
        24
        >>> model = Gaussian(jnp.zeros((4, 4, 1)), jnp.eye(16))
        >>> log_p = sgm.log_prob(sde, model, jnp.zeros((2, 4, 4, 1)), key, trace=Probing((2, 2, 1)))

    Reference: Tang and Saad 2012 (doi:10.1002/nla.779); Stathopoulos et al. 2013 (arXiv:1302.4018).
    """

    strides: tuple[int, ...] = eqx.field(static=True)
    count: int = eqx.field(static=True, default=4)
    chunk: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_instance("Probing", "strides", self.strides, tuple, remedy="pass one stride an axis, such as (2, 2, 1)")
        for axis, stride in enumerate(self.strides):
            check_count("Probing", f"strides[{axis}]", stride)
        check_count("Probing", "count", self.count)
        _check_chunk("Probing", self.chunk)

    def check(self, key, shape):
        _check_key("Probing", key)
        if len(self.strides) != len(shape):
            raise ValueError(
                f"Probing: strides = {self.strides}, but examples have the shape {shape}; pass one stride an axis."
            )

    def products(self, shape):
        return self.count * math.prod(self.strides)

    def draw(self, key, x):
        assert key is not None
        return rademacher(key, (self.count, *x.shape), x.dtype)

    def probe(self, drawn, index, x):
        colours = np.ravel_multi_index(
            np.indices(x.shape) % np.reshape(self.strides, (-1, *[1] * x.ndim)), self.strides
        )
        draw, colour = jnp.divmod(index, math.prod(self.strides))
        return jnp.where(colours == colour, drawn[draw], 0)

    def estimates(self, products):
        return products

    def combine(self, estimates):
        by_colour = estimates.reshape(self.count, -1)
        variances = jnp.var(jax.lax.stop_gradient(by_colour), axis=0, ddof=1) / self.count
        variance = jnp.sum(variances)
        # Where nothing varies, the estimate is exact. As shares, since squares of small variances vanish.
        shares = variances / variance
        dof = jnp.where(variance == 0, jnp.inf, (self.count - 1) / jnp.sum(shares**2))
        return jnp.sum(jnp.mean(by_colour, axis=0)), jnp.sqrt(variance), dof


def _check_chunk(name, chunk):
    if chunk is not None:
        check_count(name, "chunk", chunk)


def _check_key(name, key):
    if key is None:
        raise ValueError(
            f"log_prob: key is None, but {name} draws random probes; "
            "pass key=jax.random.key(seed), or trace=sgm.Exact()."
        )
