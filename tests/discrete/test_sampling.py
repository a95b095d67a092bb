"""Draws of chains of categories have the frequencies of their exact models."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from categories import CHAINS, STEPS, lookup, reverse_of_each

import sgm
from sgm.data import Heartbeat
from sgm.model import CategoricalModel, Enumerated, Gaussian
from sgm.sde import BinomialChain, HarmonicBetas, UniformChain
from sgm.solve import CategoricalAncestral


def model_frequencies(chain, model, times):
    """P(x_0) of the model by all paths through these times, from N down to 0."""
    states = list(itertools.product(range(chain.states), repeat=2))
    now = np.asarray([np.prod(chain.target[list(state)]) for state in states])
    for t, s in itertools.pairwise(times):
        step = chain.steps_between(np.asarray(s), np.asarray(t))
        moved = np.zeros(len(states))
        for share, each in zip(now, np.exp(reverse_of_each(chain, step, model, states)), strict=True):
            moved += share * np.asarray([each[0, first] * each[1, second] for first, second in states])
        now = moved
    return states, now / np.sum(now)


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("name", CHAINS)
def test_draws_have_the_frequencies_of_the_model(name, steps):
    chain = CHAINS[name]
    model, method = lookup(chain), CategoricalAncestral(steps)
    states, expected = model_frequencies(chain, model, method.times(chain))
    x = np.asarray(sgm.sample(chain, model, jr.key(0), 20_000, method=method))
    assert x.dtype == np.int32 and x.shape == (20_000, 2)
    counts = np.asarray([np.count_nonzero(np.all(x == state, axis=1)) for state in states])
    seen = expected > 1e-12
    assert counts[~seen].sum() == 0  # No mask is left.
    assert scipy.stats.chisquare(counts[seen], 20_000 * expected[seen]).pvalue > 1e-3


@pytest.mark.slow
def test_an_exact_model_draws_the_data():
    chain, examples = BinomialChain(HarmonicBetas(100), p=0.2), Heartbeat().examples
    x = np.asarray(sgm.sample(chain, Enumerated(chain, examples), jr.key(0), 2000))
    counts = np.asarray([np.count_nonzero(np.all(x == example, axis=(1, 2, 3))) for example in examples])
    assert scipy.stats.chisquare(counts, np.full(5, counts.sum() / 5)).pvalue > 1e-3
    # What is no beat is the price of steps that draw entries independently, of 0.2 bits at 100 steps.
    assert counts.sum() > 1700


@pytest.mark.quick
def test_steps_are_spread_evenly():
    chain = UniformChain(3, HarmonicBetas(100))
    np.testing.assert_array_equal(CategoricalAncestral().times(chain), np.arange(100, -1, -1))
    np.testing.assert_array_equal(CategoricalAncestral(4).times(chain), [100, 75, 50, 25, 0])
    np.testing.assert_array_equal(CategoricalAncestral(1).times(chain), [100, 0])


def test_draws_are_functions_of_their_keys():
    chain = CHAINS["uniform"]
    model = lookup(chain)
    every = sgm.sample(chain, model, jr.key(3), 10)
    np.testing.assert_array_equal(every, sgm.sample(chain, model, jr.split(jr.key(3), 10)))
    np.testing.assert_array_equal(every, sgm.sample(chain, model, jr.key(3), 10, batch_size=3))
    meter = diffrax.TextProgressMeter()
    np.testing.assert_array_equal(every, sgm.sample(chain, model, jr.key(3), 10, progress=meter))
    assert sgm.sample(chain, model, jr.key(3)).shape == (2,)
    assert sgm.solve.default_method(chain) == CategoricalAncestral()


def test_a_draw_can_begin_from_a_noised_example():
    chain, examples = BinomialChain(HarmonicBetas(100), p=0.2), Heartbeat().examples
    model = Enumerated(chain, examples)
    noised = np.stack([chain.noised(jnp.asarray(20), jnp.asarray(example), jr.key(1)) for example in examples])
    assert np.any(noised != examples)
    np.testing.assert_array_equal(sgm.sample(chain, model, jr.key(0), start=(20, noised)), examples)
    ends = np.zeros((2, 1, 20, 1), np.int32)
    assert sgm.sample(chain, model, jr.key(0), x1=ends).shape == ends.shape
    chain, partly = CHAINS["absorbing"], jnp.asarray([[0, 2]])  # Unmasked after two steps, but not at the end.
    drawn = sgm.sample(chain, lookup(chain), jr.key(0), start=(2, partly))
    assert drawn[0, 0] == 0 and drawn[0, 1] < 2
    with pytest.raises(ValueError, match=r"sample: x1\[0, 0\] is 0, which has probability 0 in the prior of Absorbing"):
        sgm.sample(chain, lookup(chain), jr.key(0), x1=partly)


def test_a_network_that_is_not_finite_draws_nothing():
    chain = CHAINS["uniform"]
    model = CategoricalModel(lambda level, u, cond, key=None: u * jnp.nan, 3, shape=(2,))
    with pytest.raises(RuntimeError, match="sample: the model's logits are not finite; train it anew"):
        sgm.sample(chain, model, jr.key(0), 4)
    np.testing.assert_array_equal(jax.jit(lambda key: sgm.sample(chain, model, key, 4))(jr.key(0)), -1)


@pytest.mark.quick
def test_mistakes_are_answered(types_unchecked):
    chain = CHAINS["uniform"]
    model = lookup(chain)
    with pytest.raises(
        ValueError, match=f"CategoricalAncestral: steps = 4, but the chain has {STEPS}; pass as many or"
    ):
        sgm.sample(chain, model, jr.key(0), method=CategoricalAncestral(4))
    with pytest.raises(ValueError, match="CategoricalAncestral: steps = 0; pass steps >= 1"):
        CategoricalAncestral(0)
    with pytest.raises(ValueError, match="sample: saveat is given, but draws of categories have no such choice; leave"):
        sgm.sample(chain, model, jr.key(0), saveat=diffrax.SaveAt(t0=True))
    for t in (0, 0.3, 1.5):
        with pytest.raises(ValueError, match=r"start at t = 0|UniformChain.until: times .*; pass whole numbers"):
            sgm.sample(chain, model, jr.key(0), start=(t, jnp.zeros((2, 2), int)))
    with pytest.raises(ValueError, match="sample: adjoint is given"):
        sgm.sample(chain, model, jr.key(0), adjoint=diffrax.DirectAdjoint())
    with pytest.raises(ValueError, match=r"sample: x1: x has entries in 0 \.\.\. 7; pass integers from 0 to 2"):
        sgm.sample(chain, model, jr.key(0), x1=jnp.asarray([[0, 7]]))
    with pytest.raises(
        TypeError, match=r"CategoricalAncestral: sde is a VP; pass an instance such as sgm.BinomialChain"
    ):
        sgm.sample(sgm.VP(), Gaussian(jnp.zeros(2), jnp.eye(2)), jr.key(0), method=CategoricalAncestral())
