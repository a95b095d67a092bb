"""What a network's output means."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgm.checks import check_instance, is_traced
from sgm.model.base import Estimate, check_process, from_denoised, from_noise, from_velocity
from sgm.model.parameterisation import AbstractParameterisation
from sgm.sde.base import AbstractSDE
from sgm.sde.chain import DiscreteChain
from sgm.sde.level import cos_of, sin_of
from sgm.types import Example, Number, Scalar

Network = Callable[[Example], Example]


class AbstractPrediction(AbstractParameterisation[AbstractSDE]):
    """Reads a network of `u` at a given noise level as an estimate."""

    @property
    def defined_at_pure_noise(self) -> bool:
        """Whether it tells x0 at level = inf, as an output does that is x0 or the velocity."""
        return True

    def check(self, sde):
        check_process(type(self).__name__, sde, "the prediction sgm.model.Logits()")

    def network_shape(self, sde, shape):
        return shape

    def model(self, network, sde, *, shape=None, units=None, data=None):
        from sgm.model.score_model import ScoreModel  # here, since it is made of predictions

        return ScoreModel(network, self, shape=shape, units=units, data=data)

    @abstractmethod
    def estimate(self, network: Network, level: Scalar, u: Example) -> Estimate:
        """Call the network once and interpret its output."""


class Noise(AbstractPrediction):
    """The output is E[noise | u].

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), key=key), Noise(), shape=(2,))

    Reference: Ho et al. 2020 (arXiv:2006.11239).
    """

    @property
    def defined_at_pure_noise(self):
        return False

    def estimate(self, network, level, u):
        return from_noise(level, u, network(u))


class Denoised(AbstractPrediction):
    """The output is E[x0 | u].

    Example:
        >>> experiment = sgm.Experiment(data=Moons(), network=partial(MLP, width=64), prediction=Denoised())
    """

    def estimate(self, network, level, u):
        return from_denoised(level, u, network(u))


class Velocity(AbstractPrediction):
    """The output is E[du/dtheta | u].

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), key=key), Velocity(), data=data)  # the default

    Reference: Salimans and Ho 2022 (arXiv:2202.00512).
    """

    def estimate(self, network, level, u):
        return from_velocity(level, u, network(u))


class Flow(AbstractPrediction):
    """The output F is E[noise - x0 | u], the velocity dx/dt of rectified flow. The network is called on its x.

    On the straight path x = (1 - t) x0 + t noise, t is sin / (cos + sin) and x is u / (cos + sin), so

        x0       = (u - sin F) / (cos + sin)
        noise    = (u + cos F) / (cos + sin)
        velocity = ((cos - sin) u + F) / (cos + sin)

    in which no digits are lost at either end.

    Example:
        >>> sde = sgm.Rectified()
        >>> model = sgm.ScoreModel(MLP((2,), key=key), Flow(), shape=(2,))  # to be trained under this process

    Reference: Liu et al. 2023 (arXiv:2209.03003); Lipman et al. 2023 (arXiv:2210.02747).
    """

    def estimate(self, network, level, u):
        cos, sin = cos_of(level), sin_of(level)
        total = cos + sin
        x = u / total
        output = network(x) / total
        return Estimate(x - sin * output, x + cos * output, (cos - sin) * x + output)


class Score(AbstractPrediction):
    """The output is grad_u log p(u) = -E[noise | u] / sin(theta).

    Example:
        >>> estimate = Score().estimate(lambda u: -u, jnp.asarray(0.0), jnp.ones(2))  # -u is the score of N(0, I)
        >>> estimate.denoised.round(3)
        Array([0.707, 0.707], dtype=float32)

    Reference: Song et al. 2021 (arXiv:2011.13456).
    """

    @property
    def defined_at_pure_noise(self):
        return False

    def estimate(self, network, level, u):
        return from_noise(level, u, -sin_of(level) * network(u))


class MeanCoefficient(AbstractPrediction):
    """The output is c in sqrt(1 - beta) u + sqrt(beta) c, the mean of the reverse of the step that ends at this level.

    The step is the chain's from k - 1 to k, where u = x. Its mean is (u - beta / sin(theta) noise) / sqrt(1 - beta), so

        velocity = -tan(theta) sqrt((1 - beta) / beta) c        noise = sin(theta) (u - sqrt((1 - beta) / beta) c)

    and an output of 0 is exact for data from N(0, I). At a time t between k and k + 1 the step is the one from t - 1,
    so that beta has no jumps: with B the chain's integrated rate, -log(1 - beta) = B(t) - B(t - 1).

    Arguments:
        chain: Chain whose reverse steps the output describes. It is never trained.

    Example:
        >>> network = sgm.nn.ConvDense((8, 8, 1), outputs=1, key=key)
        >>> model = sgm.ScoreModel(network, MeanCoefficient(chain), shape=(8, 8, 1))  # to be trained on this chain

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585), by its published code (`get_mu_sigma`).
    """

    chain: DiscreteChain = eqx.field(static=True, default_factory=DiscreteChain)

    def check(self, sde):
        if sde != self.chain:
            raise ValueError(
                "MeanCoefficient: its output is of the steps of its own chain, but the process is another; pass "
                "MeanCoefficient(sde), with the DiscreteChain that the model is trained on."
            )

    @property
    def defined_at_pure_noise(self):
        return False

    def estimate(self, network, level, u):
        # B(t) - B(t - 1) is linear in B(t) from one step's end to the next.
        increments = np.asarray(self.chain.schedule.increments)
        ends, increments = (jnp.asarray(b, u.dtype) for b in (np.cumsum(increments), increments))
        increment = jnp.interp(jax.nn.softplus(2 * level), ends, increments)
        return from_velocity(level, u, -jnp.exp(level) / jnp.sqrt(jnp.expm1(increment)) * network(u))


class WithVariance(AbstractPrediction):
    """The first half of the output's last axis is that of `mean`; the second is the model's second output.

    Arguments:
        mean: Prediction that reads the first half.

    Raises:
        TypeError: for a mean that is no prediction.

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), outputs=2, key=key), WithVariance(Velocity()), shape=(2,))
        >>> model.predict(jnp.asarray(0.0), x[0]).log_variance  # not trained yet
        Array([0., 0.], dtype=float32)

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, section 3.1).
    """

    mean: AbstractPrediction = Noise()

    def __check_init__(self):
        check_instance("WithVariance", "mean", self.mean, AbstractPrediction, "sgm.model.Noise()")

    @property
    def outputs(self):
        return 2 * self.mean.outputs

    def check(self, sde):
        self.mean.check(sde)

    @property
    def defined_at_pure_noise(self):
        return self.mean.defined_at_pure_noise

    def estimate(self, network, level, u):
        second = []

        def first(inputs):
            output, rest = jnp.split(network(inputs), 2, axis=-1)
            second.append(rest)
            return output

        estimate = self.mean.estimate(first, level, u)
        return dataclasses.replace(estimate, log_variance=second[0])


class Karras(AbstractPrediction):
    """The output F corrects the exact answer for Gaussian data of standard deviation `sigma_data`.

    With q^2 = cos^2 sigma_data^2 + sin^2, the variance of such u, the network is called on u / q and

        x0       = (cos sigma_data^2 / q^2) u + (sin sigma_data / q) F
        noise    = (sin / q^2) u - (cos sigma_data / q) F
        velocity = sin cos (1 - sigma_data^2) / q^2 u - (sigma_data / q) F

    Arguments:
        sigma_data: Standard deviation of the data in standardised coordinates.

    Raises:
        ValueError: for a sigma_data that is not above 0.

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), key=key), Karras(sigma_data=1.0), shape=(2,))
        >>> model.denoise(sgm.VE(), 0.6, jnp.asarray([4.0, 0.5])).round(3)  # not trained yet: right for N(0, I)
        Array([2.  , 0.25], dtype=float32)

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1), whose x is u / cos(theta) and sigma tan(theta).
    """

    sigma_data: Number = 1.0

    def __check_init__(self):
        if not is_traced(self) and not self.sigma_data > 0:
            raise ValueError(f"Karras: got sigma_data={self.sigma_data}; pass the standard deviation of the data, > 0.")

    def estimate(self, network, level, u):
        cos, sin = cos_of(level), sin_of(level)
        variance = cos**2 * self.sigma_data**2 + sin**2
        q = jnp.sqrt(variance)
        output = self.sigma_data / q * network(u / q)
        return Estimate(
            denoised=cos * self.sigma_data**2 / variance * u + sin * output,
            noise=sin / variance * u - cos * output,
            velocity=sin * cos * (1 - self.sigma_data**2) / variance * u - output,
        )
