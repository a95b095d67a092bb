"""The conventions of the scheduler tests of huggingface/diffusers, on processes and samplers of sgm.

Their time t of a chain is k = t + 1 here, and t = -1 is the data. In sigma space their state is x = u / cos(theta), at
sigma = tan(theta), the exponential of the level. Source: tests/schedulers/test_schedulers.py at commit
f88cece64723cee8d458c3d4214588fe034f787a, and src/diffusers/schedulers of release 0.42.1.
"""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from sgm.model import AbstractModel, AbstractPrediction, Clipped, Noise
from sgm.model.base import Example, Scalar
from sgm.sde import AbstractSDE, DiscreteChain, cos_of
from sgm.solve import AbstractGrid, AbstractSampler

SHAPE = (4, 3, 8, 8)


def _deterministic(numbers):
    return (numbers / 768).reshape(3, 8, 8, 4).transpose(3, 0, 1, 2)


SAMPLE = _deterministic(np.arange(768))
NOISE = _deterministic(np.arange(768)[::-1])


class Dummy(AbstractModel):
    """Their dummy model x t / (t + 1) of a whole batch, at the t that `time` finds for the level."""

    time: Callable[[Scalar], Scalar]
    prediction: AbstractPrediction = Noise()
    shape: tuple[int, ...] = eqx.field(static=True, default=SHAPE, init=False)

    def predict(self, level, u, cond=None, key=None):
        t = self.time(level)
        return self.prediction.estimate(lambda x: x * t / (t + 1), level, u)


def clipped(model: AbstractModel) -> AbstractModel:
    """Their `clip_sample`. They leave the noise as it is, which matters to DDIM alone, and there nothing is clipped."""
    return Clipped(model)  # pyright: ignore[reportCallIssue]  # It takes the abstract `shape` for a first field.


class Unscaled(AbstractPrediction):
    """`of`, whose network is given x = u / cos(theta), where they do not scale its input."""

    of: AbstractPrediction

    def estimate(self, network, level, u):
        return self.of.estimate(lambda _: network(u / cos_of(level)), level, u)


def on(chain: DiscreteChain) -> Callable[[Scalar], Scalar]:
    """level -> their integer t."""
    return lambda level: jnp.round(chain.time(level)) - 1


def between(chain: DiscreteChain, t0: float, t1: float) -> DiscreteChain:
    """`chain` from their t1 down to their t0."""
    return eqx.tree_at(lambda chain: (chain.t0, chain.t1), chain, (t0 + 1.0, t1 + 1.0))


class Linspace(AbstractGrid):
    """Their `timestep_spacing="linspace"` of integers; UniformGrid on times that its steps divide is "leading"."""

    def levels(self, sde, steps):
        k = 1 + np.rint(np.linspace(sde.t1 - 1, sde.t0 - 1, steps + 1))
        return sde.level(jnp.asarray(k, jnp.result_type(float)))


def solve(sampler: AbstractSampler, sde: AbstractSDE, model: AbstractModel, x1: Float[np.ndarray | Array, "..."]):
    """x at t0, by the sampler's own solve from `x1` at t1."""
    saveat, adjoint, progress = diffrax.SaveAt(t0=True), diffrax.RecursiveCheckpointAdjoint(), diffrax.NoProgressMeter()
    equation = sampler.equation(sde, model, None)
    compiled = jax.jit(lambda x1: sampler.solve(equation, x1, jr.key(0), saveat, adjoint, progress)[0][-1])
    return compiled(jnp.asarray(x1))


def levels(chain: DiscreteChain, t: Float[np.ndarray, " times"]) -> Float[Array, " times"]:
    """log tan(theta) at their times: -inf at t = -1."""
    return chain.level(jnp.asarray(t + 1.0))


def walk(
    sampler: AbstractSampler,
    model: AbstractModel,
    levels: Float[Array, " steps+1"],
    u: Float[np.ndarray | Array, "*shape"],
    noise: Float[Array, "steps *shape"] | None = None,
    unscaled: AbstractModel | None = None,
) -> Example:
    """u after the sampler's steps from each level to the next, with their `noise`.

    Loops of theirs that overwrite the sample with its scaled copy have the model `unscaled`: a step starts from
    cos(theta) x in the place of x, and its first evaluation is given that as it is.
    """
    u = jnp.asarray(u)
    shape = (len(levels) - 1, sampler.draws, *u.shape)
    noise = jnp.zeros(shape, u.dtype) if noise is None else noise.reshape(shape)

    def step(carry, each):
        (u, memory), (t, s, noise) = carry, each

        def predict(level, u):
            estimate = model.predict(level, u)
            if unscaled is None:
                return estimate
            is_first = level > (t + s) / 2
            return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), unscaled.predict(level, u), estimate)

        u = u if unscaled is None else cos_of(t) * u
        return sampler.advance(predict, t, s, u, noise, memory), None

    return jax.lax.scan(step, (u, sampler.memory(u)), (levels[:-1], levels[1:], noise))[0][0]


def torch_normal(seed: int, draws: int) -> Float[Array, "draws 4 3 8 8"]:
    """What `torch.manual_seed(seed)` and then `torch.randn(SHAPE)`, `draws` times, give on a CPU.

    Box-Muller in blocks of 16 of the 24 low bits of each word of MT19937.
    Source: pytorch/pytorch, aten/src/ATen/native/cpu/DistributionTemplates.h, `normal_fill`, at commit
    1d8b3cca6e1ca257e5e2b5477bec5f5dfbb363c6.
    """
    words = np.random.RandomState(seed).randint(2**32, size=(draws * 48, 2, 8), dtype=np.uint32)
    uniform = (words % 2**24).astype(np.float32) / np.float32(2**24)
    radius, angle = np.sqrt(-2 * np.log1p(-uniform[:, 0])), np.float32(2 * np.pi) * uniform[:, 1]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return jnp.asarray(normal.reshape(draws, *SHAPE), jnp.result_type(float))
