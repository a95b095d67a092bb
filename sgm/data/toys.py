"""Distributions in the plane, drawn afresh by key, whose differential entropies are known.

No model has an expected negative log-likelihood (nats) below `entropy`, so a trained one can be judged against it.
All but one are a point moved by isotropic noise, x = centre(u) + noise * n with u ~ U(0, 1) and n ~ N(0, I), hence
p(x) = E_u N(x; centre(u), noise^2 I): their entropies are integrals of -p log p over a grid, right to 1e-4, which the
tests redo. The checkerboard's is exact.

Reference: drawings after Grathwohl et al. 2019 (FFJORD, arXiv:1810.01367) and `sklearn.datasets`.
"""

import abc
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.data.simulated import AbstractSimulated


class AbstractToy(AbstractSimulated):
    """A distribution in the plane."""

    shape: ClassVar[tuple[int, ...]] = (2,)

    @property
    @abc.abstractmethod
    def entropy(self) -> float:
        """Differential entropy -E log p(x), in nats."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n 2"]:
        """`n` independent points, float32."""

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n 2"], dict[str, Array]]:
        return self.draw(key, n), {}


class AbstractNoisyToy(AbstractToy):
    """x = centre(u) + noise * n, with u ~ U(0, 1) and n ~ N(0, I)."""

    @property
    @abc.abstractmethod
    def noise(self) -> float:
        """Standard deviation of the noise along each axis."""

    @abc.abstractmethod
    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        """The noiseless points at the parameters u in [0, 1)."""

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n 2"]:
        key_u, key_noise = jax.random.split(key)
        u = jax.random.uniform(key_u, (n,), jnp.float32)
        return self.centre(u) + self.noise * jax.random.normal(key_noise, (n, 2), jnp.float32)


def _polar(radius: Float[Array, " n"] | float, angle: Float[Array, " n"]) -> Float[Array, "n 2"]:
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=-1)


@dataclasses.dataclass(frozen=True)
class TwoGaussians(AbstractNoisyToy):
    """Two equally likely modes at (-2, 0) and (2, 0), each of standard deviation 1/2.

    Example:
        >>> means, stds = jnp.asarray([[-2.0, 0.0], [2.0, 0.0]]), jnp.full(2, 0.5)
        >>> exact = sgm.model.GaussianMixture(means, stds, weights=jnp.full(2, 0.5))
        >>> x, _ = TwoGaussians().batch(0, 1000, seed=0)
        >>> nats = -jnp.mean(jax.vmap(exact.log_prob)(x))  # TwoGaussians().entropy, as far as 1000 points tell
    """

    noise: ClassVar[float] = 0.5
    entropy: ClassVar[float] = 2.1446

    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        return _polar(2.0, jnp.pi * jnp.floor(2 * u))


@dataclasses.dataclass(frozen=True)
class EightGaussians(AbstractNoisyToy):
    """Eight equally likely modes on a circle of radius 4 / sqrt(2), each of standard deviation 0.5 / sqrt(2).

    Example:
        >>> x, _ = EightGaussians().rows("test", 0, 500)
        >>> figure = sgm.plot.points({"data": x})
    """

    noise: ClassVar[float] = 0.5 / math.sqrt(2)
    entropy: ClassVar[float] = 2.8316

    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        return _polar(4 / math.sqrt(2), jnp.pi / 4 * jnp.floor(8 * u))


@dataclasses.dataclass(frozen=True)
class Moons(AbstractNoisyToy):
    """Two interlocking half circles, those of `sklearn.datasets.make_moons` with noise 0.1, centred and doubled.

    The upper one, about (-1, -1/2), has radius 2; the lower one is about (1, 1/2). The noise is 0.2.

    Example:
        >>> data = Moons()
        >>> model = sgm.ScoreModel(sgm.nn.MLP((2,), width=32, depth=1, key=key), data=data)  # for sgm.train
    """

    noise: ClassVar[float] = 0.2
    entropy: ClassVar[float] = 2.3939

    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        middle = jnp.asarray([1.0, 0.5], jnp.float32)
        return _polar(2.0, 2 * jnp.pi * u) + jnp.where(u < 0.5, -1.0, 1.0)[:, None] * middle


@dataclasses.dataclass(frozen=True)
class SwissRoll(AbstractNoisyToy):
    """The plane of the roll of `sklearn.datasets.make_swiss_roll` with noise 1, divided by five.

    Its centre at angle t, uniform in [3 pi / 2, 9 pi / 2], has radius t / 5. The noise is 0.2.

    Example:
        >>> data = SwissRoll()
        >>> x, fields = data.batch(step=0, batch_size=256, seed=0)
        >>> x.shape, fields
        ((256, 2), {})
    """

    noise: ClassVar[float] = 0.2
    entropy: ClassVar[float] = 2.6696

    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        angle = 1.5 * jnp.pi * (1 + 2 * u)
        return _polar(angle / 5, angle)


@dataclasses.dataclass(frozen=True)
class StandardSwissRoll(AbstractNoisyToy):
    """`SwissRoll` less its mean, divided by its standard deviation of 1.37247, the root mean square of both axes.

    So its variance is 1, as that of the data on which Sohl-Dickstein et al. 2015 state bits over a Gaussian. The noise
    is 0.14572.

    Example:
        >>> bits = sgm.bits_over_gaussian(-StandardSwissRoll().entropy, dim=2)
        >>> print(f"{2 * bits:.3f} bits over a Gaussian, of the best model")
        1.156 bits over a Gaussian, of the best model

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, table 1).
    """

    noise: ClassVar[float] = 0.2 / 1.37247
    entropy: ClassVar[float] = 2.6696 - 2 * math.log(1.37247)

    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        return (SwissRoll().centre(u) - jnp.asarray([0.4, 0.04244], jnp.float32)) / 1.37247


@dataclasses.dataclass(frozen=True)
class Spiral(AbstractNoisyToy):
    """Two spiral arms, each the other's mirror image in the origin.

    At angle t the radius is t / 3, with t = 3 pi sqrt(U(0, 1)). The noise is 0.1.

    Example:
        >>> train, test = (Spiral().rows(split, 0, 1000)[0] for split in ("train", "test"))
        >>> floor = sgm.evaluation.sliced_wasserstein(train, test, key)  # what a perfect model has, of 1000 samples
    """

    noise: ClassVar[float] = 0.1
    entropy: ClassVar[float] = 2.5406

    def centre(self, u: Float[Array, " n"]) -> Float[Array, "n 2"]:
        angle = 3 * jnp.pi * jnp.sqrt(jnp.mod(2 * u, 1.0))
        return jnp.where(u < 0.5, 1.0, -1.0)[:, None] * _polar(angle / 3, angle)


@dataclasses.dataclass(frozen=True)
class Checkerboard(AbstractToy):
    """Uniform on eight of the sixteen squares of side 2 in [-4, 4]^2, the lower left one among them.

    p(x) = 1 / 32 there, hence the entropy log 32.

    Example:
        >>> data = Checkerboard()
        >>> round(data.entropy, 4)  # log 32: no model has a lower mean of -log p
        3.4657
    """

    entropy: ClassVar[float] = math.log(32)

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n 2"]:
        column_x, row_y = jax.random.uniform(key, (2, n), jnp.float32) * jnp.asarray([[4.0], [2.0]], jnp.float32)
        parity = jnp.mod(jnp.floor(column_x), 2.0)
        return 2 * jnp.stack([column_x, row_y + jnp.floor(row_y) + parity], axis=-1) - 4
