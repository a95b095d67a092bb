from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array

import sgm
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.of_timesteps import OfTimesteps
from sgm.interop.timestep.timesteps import ChainTimesteps, EDMTimesteps, FlowTimesteps, VETimesteps
from sgm.model import Flow, Gaussian, Karras, Noise, Score
from sgm.sde import CosineBetas, DiscreteChain, LinearBetas, ScaledLinearBetas, SigmoidBetas, ZeroTerminalSNR
from sgm.sde.level import LARGEST_LEVEL

CHAINS = {
    "linear": LinearBetas(1000),
    "few": LinearBetas(10, 1e-4, 0.2),
    "many": LinearBetas(4000, 2.5e-5, 0.005),
    "scaled": ScaledLinearBetas(1000),
    "cosine": CosineBetas(1000),
    "sigmoid": SigmoidBetas(1000),
    "zero terminal": ZeroTerminalSNR(LinearBetas(1000)),
    "zero terminal scaled": ZeroTerminalSNR(ScaledLinearBetas(1000)),
    "zero terminal cosine": ZeroTerminalSNR(CosineBetas(50)),
}


def of_levels(timesteps, levels):
    """The timesteps at levels that are clipped as a model clips them."""
    return jax.jit(jax.vmap(lambda level: timesteps(level).number))(jnp.clip(levels, -LARGEST_LEVEL, LARGEST_LEVEL))


@pytest.mark.parametrize("name", CHAINS)
def test_timesteps_at_the_levels_of_a_chain_are_whole(name):
    chain = DiscreteChain(CHAINS[name])
    k = jnp.arange(1, chain.steps + 1, dtype=jnp.float32)
    np.testing.assert_array_equal(of_levels(ChainTimesteps(chain), chain.level(k)), k - 1)


@pytest.mark.parametrize("name", ["linear", "zero terminal", "cosine"])
def test_timesteps_between_the_levels_lie_between(name):
    chain = DiscreteChain(CHAINS[name])
    k = jnp.linspace(1.3, 999.7, 777)
    np.testing.assert_allclose(of_levels(ChainTimesteps(chain), chain.level(k)), k - 1, atol=2e-3)
    # Below the first level and above the last there is no other timestep.
    ends = jnp.asarray([-20.0, chain.level(0.5), 19.0, jnp.inf])
    np.testing.assert_array_equal(of_levels(ChainTimesteps(chain), ends), [0, 0, 999, 999])


def test_the_timestep_has_the_derivative_of_the_time():
    chain = DiscreteChain(CHAINS["linear"])
    timesteps = ChainTimesteps(chain)
    for k in (437.0, 437.4):
        slope = jax.grad(lambda level: timesteps(level).number)(chain.level(k))
        np.testing.assert_allclose(slope, jax.grad(chain.time)(chain.level(k)), rtol=1e-6)


def test_timesteps_of_flow_edm_and_ve():
    t = jnp.asarray([1e-3, 0.25, 0.9, 1.0])
    np.testing.assert_allclose(of_levels(FlowTimesteps(1000), sgm.Rectified(t1=1.0).level(t)), 1000 * t, rtol=1e-5)
    sigma = jnp.asarray([0.002, 0.5, 80.0])
    np.testing.assert_allclose(of_levels(EDMTimesteps(), jnp.log(sigma)), np.log(sigma) / 4, rtol=1e-6)
    np.testing.assert_allclose(of_levels(VETimesteps(), jnp.log(sigma)), sigma, rtol=1e-6)


class Exact(AbstractTimestepNetwork):
    """A network of the exact answer for data from N(0, std^2), in the units of its kind."""

    answer: Callable[..., Array]
    reads: int | None = None
    null: bool = False

    @property
    def shape(self):
        return 2, 2, 1

    @property
    def outputs(self):
        return 1

    @property
    def classes(self):
        return self.reads

    @property
    def has_null(self):
        return self.null

    def __call__(self, x, timestep, label=None, key=None):
        return self.answer(x, timestep, label, key)


STD = 0.3
KINDS = {
    # x = x0 + sigma noise; grad log p = -x / (std^2 + sigma^2).
    "ve": (VETimesteps(), Score(), lambda x, sigma, *_: -x / (STD**2 + sigma**2)),
    # x = (1 - t) x0 + t noise.
    "flow": (
        FlowTimesteps(1000),
        Flow(),
        lambda x, t, *_: (t / 1000 - (1 - t / 1000) * STD**2) / ((1 - t / 1000) ** 2 * STD**2 + (t / 1000) ** 2) * x,
    ),
    "edm": (EDMTimesteps(), Karras(STD), lambda x, *_: 0 * x),
    # F = (x0 - c_skip x) / c_out, for x = sigma_data-scaled inputs of data that are narrower than sigma_data = 1.
    "edm negated": (
        EDMTimesteps(negated=True),
        Karras(1.0),
        lambda x, c, *_: -edm_output(x, jnp.exp(4 * c)),
    ),
}


def edm_output(x, sigma):
    """What a network of EDM of sigma_data 1 gives for data from N(0, STD^2), for x / sqrt(1 + sigma^2)."""
    root = jnp.sqrt(1 + sigma**2)
    noised = x * root
    return (STD**2 / (STD**2 + sigma**2) * noised - noised / root**2) * root / sigma


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [-3.0, 0.2, 4.0])
def test_a_network_of_the_exact_answer_is_the_exact_model(kind, level):
    timesteps, prediction, answer = KINDS[kind]
    model = sgm.ScoreModel(OfTimesteps(Exact(answer), timesteps), prediction, shape=(2, 2, 1))
    u, level = jr.normal(jr.key(0), (2, 2, 1)), jnp.asarray(level)
    exact = Gaussian(jnp.zeros((2, 2, 1)), STD**2 * jnp.eye(4)).predict(level, u)
    estimate = model.predict(level, u)
    for name in ("denoised", "noise", "velocity"):
        np.testing.assert_allclose(getattr(estimate, name), getattr(exact, name), rtol=2e-4, atol=2e-5)


def labelled(x, timestep, label, key):
    assert key is not None
    return jnp.full_like(x, label)


def test_labels_reach_the_network_and_the_null_stands_for_none():
    timesteps, u, level = EDMTimesteps(), jnp.zeros((2, 2, 1)), jnp.asarray(0.1)
    network = OfTimesteps(Exact(labelled, 3, True), timesteps)
    assert network.conditioning == sgm.nn.Conditioning(classes=3, null=True)

    def seen(cond):
        return float(network(level, u, cond, jr.key(0))[0, 0, 0])

    label = jnp.asarray(2)
    assert [seen(None), seen(sgm.Condition()), seen(sgm.Condition(label=label))] == [3, 3, 2]
    dropped = [sgm.Condition(label=label, dropped=jnp.asarray(dropped)) for dropped in (True, False)]
    assert [seen(cond) for cond in dropped] == [3, 2]
    guided = sgm.model.ClassifierFree(sgm.ScoreModel(network, Noise(), shape=(2, 2, 1)), weight=1.0)
    found = guided.predict(level, u, sgm.Condition(label=label), jr.key(0)).noise
    np.testing.assert_allclose(found, 2 * 2 - 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda network, u: network(0.1, u), "cond has no parts, but the network was built for `label`"),
        (
            lambda network, u: network(0.1, u, sgm.Condition(label=jnp.asarray(1), dropped=jnp.asarray(True))),
            "cond has `dropped`, but the network was built without a null",
        ),
        (lambda network, u: network(0.1, u, sgm.Condition(label=jnp.asarray(5))), "pass labels from 0 to 2"),
        (lambda network, u: network(0.1, u, sgm.Condition(label=jnp.asarray([1]))), "a network acts on one example"),
    ],
)
def test_conditions_of_another_network_are_refused(call, message):
    network = OfTimesteps(Exact(labelled, 3), EDMTimesteps())
    with pytest.raises(ValueError, match=message):
        call(lambda level, u, cond=None: network(jnp.asarray(level), u, cond), jnp.zeros((2, 2, 1)))


def test_other_parts_are_refused(types_unchecked):
    with pytest.raises(TypeError, match="OfTimesteps: network is a MLP; pass an instance such as UNet2DModel"):
        OfTimesteps(sgm.nn.MLP((2,), key=jr.key(0)), EDMTimesteps())
    with pytest.raises(TypeError, match="OfTimesteps: timesteps is the class EDMTimesteps; pass"):
        OfTimesteps(Exact(labelled), EDMTimesteps)
