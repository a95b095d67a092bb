"""Tasks of simulation-based inference whose posteriors are known, by the definitions of Lueckmann et al. 2021.

Imported by tests/benchmarks/sbi.py. The package `sbibm` has observations and reference draws as files, which are read
without importing it: `pip install --no-deps --target FOLDER sbibm==1.1.0`, and FOLDER on the PYTHONPATH.

    python tests/benchmarks/sbi_tasks.py

checks the tasks: for each observation, moments of simulated data against closed forms, and moments of the posterior, by
importance sampling with the densities written here, against those of the reference draws.

Reference: Lueckmann et al. 2021 (arXiv:2101.04653, appendix T); its code for what the paper leaves open.
"""

import abc
import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np


@dataclasses.dataclass(frozen=True)
class Observation:
    """An observation with draws of its posterior.

    Arguments:
        x: Data, of shape (data,).
        truth: Parameters that they were simulated with, of shape (parameters,).
        reference: Draws of the posterior, of shape (10000, parameters).
    """

    x: np.ndarray
    truth: np.ndarray
    reference: np.ndarray


class AbstractTask(abc.ABC):
    """A prior and a simulator."""

    name: ClassVar[str]
    parameters: ClassVar[int]
    bound: ClassVar[float] = math.inf
    """Parameters are uniform within -bound and bound, where that is finite."""

    def prior(self, key):
        """Parameters, of shape (parameters,)."""
        return jr.uniform(key, (self.parameters,), minval=-self.bound, maxval=self.bound)

    @abc.abstractmethod
    def simulate(self, key, theta):
        """Data, of shape (data,), given parameters."""

    @abc.abstractmethod
    def moments(self, theta):
        """Mean and standard deviation of each entry of the data, for the checks."""

    @abc.abstractmethod
    def log_likelihood(self, theta, x):
        """log p(x | theta) up to a constant, for the checks."""

    def simulations(self, key, n):
        """So many parameters of the prior and their data, as NumPy arrays."""

        def one(key):
            key_prior, key_data = jr.split(key)
            theta = self.prior(key_prior)
            return theta, self.simulate(key_data, theta)

        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jr.split(key, n)))

    def observation(self, number):
        """The published observation of a number from 1 to 10."""
        spec = importlib.util.find_spec("sbibm")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "sbi: the package sbibm is not on the path; pip install --no-deps --target FOLDER sbibm==1.1.0, and "
                "set PYTHONPATH=FOLDER."
            )
        import pandas

        folder = Path(spec.origin).parent / "tasks" / self.name / "files" / f"num_observation_{number}"
        names = "observation.csv", "true_parameters.csv", "reference_posterior_samples.csv.bz2"
        x, truth, reference = (pandas.read_csv(folder / name).to_numpy(np.float32) for name in names)
        return Observation(x[0], truth[0], reference)


class TwoMoons(AbstractTask):
    """x on a half circle of radius 0.1 around (0.25 - |theta_1 + theta_2| / sqrt 2, (theta_2 - theta_1) / sqrt 2)."""

    name, parameters, bound = "two_moons", 2, 1.0

    def _moved(self, theta):
        first, second = theta[..., 0], theta[..., 1]
        return jnp.stack([0.25 - jnp.abs(first + second) / jnp.sqrt(2.0), (second - first) / jnp.sqrt(2.0)], axis=-1)

    def simulate(self, key, theta):
        key_angle, key_radius = jr.split(key)
        angle = jr.uniform(key_angle, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
        radius = 0.1 + 0.01 * jr.normal(key_radius)
        return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)]) + self._moved(theta)

    def moments(self, theta):
        # Of r cos(a) and r sin(a), for E r = 0.1 and E r^2 = 0.1^2 + 0.01^2.
        square, mean = (0.1**2 + 0.01**2) / 2, np.asarray([0.2 / np.pi, 0.0])
        return self._moved(theta) + mean, np.sqrt(square - mean**2)

    def log_likelihood(self, theta, x):
        u, v = jnp.moveaxis(x - self._moved(theta), -1, 0)
        radius = jnp.hypot(u, v)
        # The density of (u, v) has a factor 1 / radius, which the reference draws do have.
        return jnp.where(u > 0, -0.5 * ((radius - 0.1) / 0.01) ** 2 - jnp.log(radius), -jnp.inf)


class GaussianLinear(AbstractTask):
    """theta ~ N(0, 0.1 I), x ~ N(theta, 0.1 I), of 10 entries."""

    name, parameters = "gaussian_linear", 10
    variance: ClassVar[float] = 0.1
    precision: ClassVar[np.ndarray] = np.eye(10) / 0.1  # Of the prior.

    def prior(self, key):
        return math.sqrt(self.variance) * jr.normal(key, (self.parameters,))

    def simulate(self, key, theta):
        return theta + math.sqrt(self.variance) * jr.normal(key, theta.shape)

    def moments(self, theta):
        return theta, np.full(self.parameters, math.sqrt(self.variance))

    def log_likelihood(self, theta, x):
        return -0.5 * jnp.sum((x - theta) ** 2, axis=-1) / self.variance


class TheGaussianMixture(AbstractTask):
    """x ~ N(theta, I) or N(theta, 0.01 I), each as often."""

    name, parameters, bound = "gaussian_mixture", 2, 10.0

    def simulate(self, key, theta):
        key_which, key_noise = jr.split(key)
        return theta + jnp.where(jr.bernoulli(key_which), 1.0, 0.1) * jr.normal(key_noise, theta.shape)

    def moments(self, theta):
        return theta, np.full(self.parameters, math.sqrt((1 + 0.01) / 2))

    def log_likelihood(self, theta, x):
        square = jnp.sum((x - theta) ** 2, axis=-1)
        return jnp.logaddexp(-0.5 * square, -0.5 * square / 0.01 - 2 * math.log(0.1))


class SLCP(AbstractTask):
    """Four points of the plane from a Gaussian of mean theta_1, theta_2, of standard deviations theta_3^2, theta_4^2
    and of correlation tanh theta_5."""

    name, parameters, bound = "slcp", 5, 3.0

    def _scales(self, theta):
        first, second, correlation = theta[..., 2] ** 2, theta[..., 3] ** 2, jnp.tanh(theta[..., 4])
        # The rows of a Cholesky factor of the covariance, to whose diagonal sbibm adds 1e-6.
        one = jnp.sqrt(first**2 + 1e-6)
        mixed = correlation * first * second / one
        return one, mixed, jnp.sqrt(second**2 + 1e-6 - mixed**2)

    def simulate(self, key, theta):
        one, mixed, two = self._scales(theta)
        z = jr.normal(key, (4, 2))
        return (theta[:2] + jnp.stack([one * z[:, 0], mixed * z[:, 0] + two * z[:, 1]], axis=-1)).reshape(-1)

    def moments(self, theta):
        return np.tile(theta[:2], 4), np.tile(theta[2:4] ** 2, 4)

    def log_likelihood(self, theta, x):
        one, mixed, two = (scale[..., None] for scale in self._scales(theta))
        points = x.reshape(4, 2) - theta[..., None, :2]
        first = points[..., 0] / one
        second = (points[..., 1] - mixed * first) / two
        return -0.5 * jnp.sum(first**2 + second**2, axis=-1) - 4 * jnp.log(one * two)[..., 0]


class BernoulliGLM(AbstractTask):
    """100 spikes of probability sigmoid(X theta), with X an offset and 9 lags of white noise; the data are X^T spikes.

    The prior is Gaussian: of variance 2 for the offset, and smooth for the filter.
    """

    name, parameters = "bernoulli_glm", 10

    def __init__(self):
        stimulus = np.random.RandomState(42).randn(100).astype(np.float32)
        lags = [np.concatenate([np.zeros(lag, np.float32), stimulus[: 100 - lag]]) for lag in range(9)]
        self.design = np.stack([np.ones(100, np.float32), *lags], axis=1)
        difference = np.eye(9) - np.eye(9, k=-1)
        root = difference @ difference + np.diag(np.sqrt(np.arange(9) / 9))
        self.precision = np.zeros((10, 10))
        self.precision[0, 0], self.precision[1:, 1:] = 0.5, root.T @ root
        self.factor = np.linalg.cholesky(np.linalg.inv(self.precision)).astype(np.float32)

    def prior(self, key):
        return self.factor @ jr.normal(key, (self.parameters,))

    def simulate(self, key, theta):
        return self.design.T @ jr.bernoulli(key, jax.nn.sigmoid(self.design @ theta)).astype(float)

    def moments(self, theta):
        rate = 1 / (1 + np.exp(-self.design @ theta))
        return self.design.T @ rate, np.sqrt((self.design**2).T @ (rate * (1 - rate)))

    def log_likelihood(self, theta, x):
        # The data are sufficient: theta . X^T spikes is all that the likelihood has of the spikes.
        return theta @ x - jnp.sum(jax.nn.softplus(theta @ self.design.T), axis=-1)


TASKS = {task.name: task for task in (TwoMoons(), GaussianLinear(), TheGaussianMixture(), SLCP(), BernoulliGLM())}


def check_simulator(task, number, key, n=200_000):
    """Moments of the data given the true parameters: simulated, and those of the observation."""
    observation = task.observation(number)
    x = np.asarray(jax.jit(jax.vmap(task.simulate, (0, None)))(jr.split(key, n), observation.truth), np.float64)
    mean, std = (np.asarray(moment, np.float64) for moment in task.moments(observation.truth))
    print(
        f"{task.name} {number}: simulated means are {np.abs((x.mean(axis=0) - mean) / std).max() * np.sqrt(n):.1f} "
        f"standard errors off at most, standard deviations {np.abs(x.std(axis=0) / std - 1).max():.4f} of them; the "
        f"observation is {np.abs((observation.x - mean) / std).max():.1f} standard deviations off at most"
    )


def check_posterior(task, number, key, n=2_000_000):
    """Moments of the posterior: by importance sampling, and of the reference draws."""
    observation = task.observation(number)
    reference = observation.reference.astype(np.float64)
    mean, cov = reference.mean(axis=0), np.cov(reference.T)
    if math.isfinite(task.bound):  # Uniform in a box around all reference draws, within the prior.
        low, high = reference.min(axis=0), reference.max(axis=0)
        margin = 0.05 * (high - low)
        low, high = np.maximum(low - margin, -task.bound), np.minimum(high + margin, task.bound)
        proposals = np.asarray(jr.uniform(key, (n, task.parameters), minval=low, maxval=high))
        log_ratio = np.zeros(n)
    else:  # Gaussian, wider than the posterior.
        z = np.asarray(jr.normal(key, (n // 10, task.parameters)), np.float64)
        proposals = mean + 1.2 * z @ np.linalg.cholesky(cov).T
        log_prior = -0.5 * np.einsum("ni,ij,nj->n", proposals, task.precision, proposals)
        log_ratio = log_prior + 0.5 * np.sum(z**2, axis=-1)
    logs = np.asarray(jax.jit(task.log_likelihood)(proposals, observation.x), np.float64) + log_ratio
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    own = weights @ proposals
    std, size = np.sqrt(weights @ (proposals - own) ** 2), 1 / np.sum(weights**2)
    error = std * np.sqrt(1 / size + 1 / len(reference))
    print(
        f"{task.name} {number}: by {size:.0f} effective draws, the posterior's means are "
        f"{np.abs((own - mean) / error).max():.1f} standard errors off at most, standard deviations "
        f"{np.abs(std / reference.std(axis=0) - 1).max():.3f} of them; the truth is "
        f"{np.abs((observation.truth - mean) / reference.std(axis=0)).max():.1f} standard deviations off at most"
    )


if __name__ == "__main__":
    for task in TASKS.values():
        for number in range(1, 11):
            check_simulator(task, number, jr.key(number))
            check_posterior(task, number, jr.key(number))
