"""What a model says of the data under the noise.

On the universal path u = cos(theta) x0 + sin(theta) noise, whose velocity is v = du/dtheta, a model estimates

    x0 = cos(theta) u - sin(theta) v          noise = sin(theta) u + cos(theta) v

by their conditional means given u. It is told the noise level l = log tan(theta), which keeps its digits at both ends,
and knows no process: x = rho(t) u leads to any.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from sgm.checks import check_examples, check_instance, check_time, is_traced, warn_of_scale
from sgm.model.reverse import AbstractReverseModel, check_pair
from sgm.nn.condition import Condition
from sgm.nn.units import Units
from sgm.random import normal
from sgm.sde.base import AbstractSDE
from sgm.sde.level import cos_of, sin_of
from sgm.sde.process import AbstractProcess
from sgm.types import Example, Number, Scalar


class Estimate(eqx.Module):
    """The conditional means given a state u of the path.

    Arguments:
        denoised: E[x0 | u].
        noise: E[noise | u].
        velocity: E[velocity | u].
        log_variance: Second output of a model that has one, from which `Interpolated`, `Learned` or `Given` of
            `sgm.model` find the variance of a reverse transition.

    Example:
        >>> estimate = model.predict(jnp.asarray(0.0), jnp.ones(2))  # of N(0, I), where cos = sin
        >>> estimate.denoised.round(3)
        Array([0.707, 0.707], dtype=float32)
    """

    denoised: Example
    noise: Example
    velocity: Example
    log_variance: Example | None = None

    def moved(self, level: Scalar, change: Example) -> "Estimate":
        """The estimate whose x0 is moved by `change`, and its noise and velocity with it.

        Arguments:
            level: Noise level log tan(theta).
            change: Change of x0.
        """
        turn = change / sin_of(level)
        noise, velocity = self.noise - cos_of(level) * turn, self.velocity - turn
        return Estimate(self.denoised + change, noise, velocity, self.log_variance)

    def known(self, level: Scalar, u: Example, x0: Example) -> "Estimate":
        """The estimate with the entries of x0 that are known, and all means of theirs; nan in x0 for the others."""
        is_known = ~jnp.isnan(x0)
        # No nan goes into what is not used, since its derivative would come out. A missing u is taken for x0 itself.
        filled = jnp.where(is_known, x0, 0)
        of_x0 = from_denoised(level, jnp.where(jnp.isnan(u), cos_of(level) * filled, u), filled)

        def of(ours, exact):
            return jnp.where(is_known, exact, ours)

        noise, velocity = of(self.noise, of_x0.noise), of(self.velocity, of_x0.velocity)
        return Estimate(of(self.denoised, filled), noise, velocity, self.log_variance)

    def extrapolated(self, other: "Estimate", weight: Number) -> "Estimate":
        """`self + weight (self - other)` of the three means; at weight 0 it is `self`, to the bit."""

        def of(ours, theirs):
            return ours + weight * (ours - theirs)

        noise, velocity = of(self.noise, other.noise), of(self.velocity, other.velocity)
        return Estimate(of(self.denoised, other.denoised), noise, velocity, self.log_variance)


def from_denoised(level: Scalar, u: Example, denoised: Example) -> Estimate:
    """Build the estimate of a model that predicts x0.

    Arguments:
        level: Noise level log tan(theta).
        u: State of the path.
        denoised: Conditional mean of x0 given u.

    Returns:
        All three conditional means.

    Example:
        >>> estimate = from_denoised(jnp.asarray(0.0), jnp.ones(2), denoised=jnp.zeros(2))  # in `predict` of a model
        >>> estimate.noise.round(3)  # u / sin(theta)
        Array([1.414, 1.414], dtype=float32)
    """
    cos, sin = cos_of(level), sin_of(level)
    return Estimate(denoised, (u - cos * denoised) / sin, (cos * u - denoised) / sin)


def from_noise(level: Scalar, u: Example, noise: Example) -> Estimate:
    """Build the estimate of a model that predicts the noise.

    Arguments:
        level: Noise level log tan(theta).
        u: State of the path.
        noise: Conditional mean of the noise given u.

    Returns:
        All three conditional means.

    Example:
        >>> estimate = from_noise(jnp.asarray(0.0), jnp.ones(2), noise=jnp.zeros(2))
        >>> estimate.denoised.round(3)  # u / cos(theta)
        Array([1.414, 1.414], dtype=float32)
    """
    cos, sin = cos_of(level), sin_of(level)
    return Estimate((u - sin * noise) / cos, noise, (noise - sin * u) / cos)


def from_velocity(level: Scalar, u: Example, velocity: Example) -> Estimate:
    """Build the estimate of a model that predicts the velocity.

    Arguments:
        level: Noise level log tan(theta).
        u: State of the path.
        velocity: Conditional mean of the velocity given u.

    Returns:
        All three conditional means.

    Example:
        >>> estimate = from_velocity(jnp.asarray(0.0), jnp.ones(2), velocity=jnp.zeros(2))
        >>> estimate.denoised.round(3), estimate.noise.round(3)
        (Array([0.707, 0.707], dtype=float32), Array([0.707, 0.707], dtype=float32))
    """
    cos, sin = cos_of(level), sin_of(level)
    return Estimate(cos * u - sin * velocity, sin * u + cos * velocity, velocity)


class AbstractModel(AbstractReverseModel):
    """A model of examples of the given `shape`; it acts on one example, `jax.vmap` makes it act on many."""

    @property
    def takes_levels(self):
        return False

    def check_process(self, call, process):
        check_process(call, process)

    def check_levels(self, call, levels):
        if levels is not None and not any(eqx.tree_equal(self.units, of) for of in (Units(), Units.of_levels(levels))):
            raise ValueError(
                f"{call}: the data have {levels} grey levels, but the units of the model are others; pass "
                "ScoreModel(network, data=data)."
            )

    def check_batch(self, call, x):
        return check_examples(call, x, self.shape)

    def as_seen(self, call, x):
        check_examples(call, x, self.shape)
        z = self.units.standardise(x)
        warn_of_scale(call, z, stacklevel=4)
        return z

    @abstractmethod
    def predict(
        self, level: Scalar, u: Example, cond: Condition | None = None, key: PRNGKeyArray | None = None
    ) -> Estimate:
        """The estimate at noise level log tan(theta) and `u` of shape `self.shape`, in standardised coordinates.

        A `key` switches dropout on.
        """

    def score(self, sde: AbstractSDE, t: Number, x: Example, cond: Condition | None = None) -> Example:
        """grad_x log p_t(x) for one noised example `x` of shape `self.shape`, in the data's units."""
        return -self._predict_at("score", sde, t, x, cond).noise / (sde.sigma(t) * self.units.std.value)

    def denoise(self, sde: AbstractSDE, t: Number, x: Example, cond: Condition | None = None) -> Example:
        """E[x0 | x_t = x] for one noised example `x` of shape `self.shape`, in the data's units."""
        return self.units.restore(self._predict_at("denoise", sde, t, x, cond).denoised)

    def noised(self, sde: AbstractSDE, t: Number, x0: Example, key: PRNGKeyArray) -> Example:
        """Draw x_t of one clean example `x0` of shape `self.shape`, in the data's units."""
        check_process("noised", sde)
        check_examples("noised", x0, self.shape)
        check_time("noised", sde, t)
        mean, std = sde.marginal(t, self.units.standardise(x0))
        return self.units.restore(mean + std * normal(key, mean.shape, mean.dtype))

    def _predict_at(self, call, sde, t, x, cond):
        check_process(call, sde)
        check_examples(call, x, self.shape)
        check_time(call, sde, t)
        z = self.units.standardise(x)
        return estimate_of(self, jnp.asarray(sde.level(t), z.dtype), z / sde.rho(t), cond)


def estimate_of(
    model: AbstractModel, level: Scalar, u: Example, cond: Condition | None = None, key: PRNGKeyArray | None = None
) -> Estimate:
    """`model.predict`, whose three means must be of the shape of u: others would be broadcast without a word."""
    estimate = _predict(model, level, u, cond, key)
    shapes = [jnp.shape(part) for part in (estimate.denoised, estimate.noise, estimate.velocity)]
    if any(shape != jnp.shape(u) for shape in shapes):
        raise ValueError(
            f"{type(model).__name__}: predict gives denoised, noise and velocity of the shapes "
            f"{', '.join(map(str, shapes))} for u of shape {jnp.shape(u)}; give them that shape."
        )
    return estimate


@eqx.filter_jit
def _predict(model, level, u, cond, key):
    # Compiled as its own function, so that a solve that calls the model in several places traces it once.
    return model.predict(level, u, cond, key)


class AbstractWrapper(AbstractModel):
    """A model that changes what another `model` says, and is otherwise as that one."""

    model: eqx.AbstractVar[AbstractModel]

    @property
    def shape(self):
        return self.model.shape

    @property
    def units(self):
        return self.model.units

    @property
    def conditioning(self):
        return self.model.conditioning

    @property
    def defined_at_pure_noise(self):
        return self.model.defined_at_pure_noise

    @property
    def takes_missing(self):
        return self.model.takes_missing


class AbstractModifier(AbstractWrapper):
    """A wrapper that is built from a model and numbers alone, so that an experiment may name it as its guidance."""


def check_process(call: str, sde: Any, for_categories: str = "sgm.CategoricalModel and sgm.categorical_elbo") -> None:
    """Raise TypeError for what is no process of real numbers, of which `for_categories` takes the place."""
    if isinstance(sde, AbstractProcess) and not isinstance(sde, AbstractSDE):
        raise TypeError(
            f"{call}: {type(sde).__name__} is a chain of categories, and this is of real numbers; pass for it "
            f"{for_categories}."
        )
    check_instance(call, "sde", sde, AbstractSDE, "sgm.VP()")


def check_process_and_model(call: str, sde: Any, model: Any) -> None:
    """Raise TypeError unless these are a process and a model of real numbers, in this order."""
    if not isinstance(sde, AbstractReverseModel):
        check_process(call, sde)
    if isinstance(sde, AbstractSDE):
        check_instance(call, "model", model, AbstractModel, "sgm.ScoreModel(network, shape=(2,))")
    check_pair(call, sde, model)


def check_pure_noise(call: str, sde: AbstractProcess, model: AbstractReverseModel) -> bool | None:
    """Whether the process ends in pure noise; None where it is traced and may do so.

    Raise ValueError if it does and the model is not defined there.
    """
    ends = sde.ends_in_pure_noise
    if ends and not model.defined_at_pure_noise:
        raise ValueError(
            f"{call}: {type(sde).__name__} ends in pure noise, where a prediction of the noise tells nothing of x0; "
            "pass a model with the prediction Velocity(), Denoised() or Karras(), or a process with an earlier end."
        )
    return ends if model.defined_at_pure_noise else False


def check_alike(call: str, first: AbstractModel, second: AbstractModel) -> None:
    """Raise ValueError unless two models are of examples of one shape, in the same units."""
    if first.shape != second.shape:
        raise ValueError(f"{call}: the models are of examples of {first.shape} and {second.shape}; pass models alike.")
    if not is_traced((first.units, second.units)) and not eqx.tree_equal(first.units, second.units):
        raise ValueError(
            f"{call}: the models have different units; pass models that are trained on the same data, or an exact one "
            "as prior.in_units(model.units)."
        )
