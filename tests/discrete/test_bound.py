"""The bound of chains of categories against sums over all paths, and the best one of 2015's heartbeat."""

import itertools
import math

import equinox as eqx
import heartbeats
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from categories import CHAINS, STEPS, lookup, reverse_of_each

import sgm
from sgm.data import Heartbeat
from sgm.likelihood import ForwardEntropy
from sgm.likelihood.categorical_elbo import term
from sgm.model import CategoricalModel, Enumerated, network_shape
from sgm.nn import MLP
from sgm.sde import AbsorbingChain, BinomialChain, HarmonicBetas, InformationSteps


def by_all_paths(chain, model, x0):
    """E[log p(x_0, ..., x_N) - log q(x_1, ..., x_N | x_0)] over every path, and log p(x_0), in double precision."""
    states = list(itertools.product(range(chain.states), repeat=len(x0)))
    reverse = []
    for k in range(1, STEPS + 1):
        logs = reverse_of_each(chain, chain.steps_between(np.asarray(k - 1), np.asarray(k)), model, states)
        reverse.append({state: np.asarray(part, np.float64) for state, part in zip(states, logs, strict=True)})

    def log_of(logs, x):
        return sum(logs[place, entry] for place, entry in enumerate(x))

    bound, marginal = 0.0, 0.0
    for path in itertools.product(states, repeat=STEPS):
        stations = [tuple(x0), *path]
        log_q = sum(
            math.log(max(chain.transition(k - 1, k)[before, after], 1e-300))
            for k in range(1, STEPS + 1)
            for before, after in zip(stations[k - 1], stations[k], strict=True)
        )
        log_p = sum(math.log(max(chain.target[entry], 1e-300)) for entry in path[-1])
        log_p += sum(log_of(reverse[k - 1][stations[k]], stations[k - 1]) for k in range(1, STEPS + 1))
        marginal += math.exp(max(log_p, -700))
        if log_q > -600:
            bound += math.exp(log_q) * (log_p - log_q)
    return bound, math.log(marginal)


@pytest.mark.slow_except("absorbing")
@pytest.mark.parametrize("name", CHAINS)
def test_the_bound_is_the_sum_over_all_paths(name):
    chain, x0 = CHAINS[name], [1, 0]
    model = lookup(chain)
    expected, log_prob = by_all_paths(chain, model, x0)
    assert expected < log_prob
    x = jnp.broadcast_to(jnp.asarray(x0), (4000, 2))
    for steps, times in ((None, None), (1, InformationSteps(0.3))):
        how = {} if times is None else {"times": times}
        found = sgm.categorical_elbo(chain, model, x, jr.key(0), steps=steps, full=True, **how)
        stderr = float(np.std(found.value)) / len(x) ** 0.5
        assert abs(float(jnp.mean(found.value)) - expected) < 4 * stderr + 1e-5
        # The standard error of each of two draws, by its mean square.
        assert float(jnp.mean(found.stderr**2)) ** 0.5 == pytest.approx(float(np.std(found.value)), rel=0.1)
        np.testing.assert_allclose(found.value, found.reconstruction - found.diffusion - found.prior, atol=1e-4)
    assert found.transitions is None and found.prior.shape == (4000,)


@pytest.mark.slow
def test_the_best_factorised_bound_of_2015():
    """The exact model's bound is an estimate of the sum by enumeration, here at fewer steps than in 2015."""
    (bound, of_2015), of_steps = heartbeats.bounds(30, 0.2), heartbeats.terms(30, 0.2)
    assert of_2015 < bound < -math.log2(5)
    chain, examples = BinomialChain(HarmonicBetas(30), p=0.2), Heartbeat().examples
    model, x = Enumerated(chain, examples), np.repeat(examples, 500, axis=0)
    found = sgm.categorical_elbo(chain, model, x, jr.key(0), full=True)
    bits = np.asarray(found.value, np.float64) / math.log(2)
    stderr = np.std(bits) / len(bits) ** 0.5
    assert abs(np.mean(bits) - bound) < 3 * stderr < 0.05
    between = np.mean(found.transitions, axis=0).sum() / math.log(2)
    assert abs(between - of_steps[1:].sum() / math.log(2)) < 3 * stderr
    with_entropy = sgm.categorical_elbo(chain, model, x, jr.key(0), reconstruction=ForwardEntropy())
    np.testing.assert_allclose(
        np.mean(with_entropy - found.value + found.reconstruction) / math.log(2),
        of_2015 - bound - of_steps[0] / math.log(2),
        atol=1e-4,
    )


@pytest.mark.slow
def test_the_best_bound_at_the_steps_of_2015():
    bound, of_2015 = heartbeats.bounds(2000, 0.2)
    assert of_2015 == pytest.approx(-2.3683, abs=1e-4) and bound == pytest.approx(-2.3244, abs=1e-4)
    chain, examples = BinomialChain(HarmonicBetas(2000), p=0.2), Heartbeat().examples
    x = np.repeat(examples, 400, axis=0)
    found = sgm.categorical_elbo(chain, Enumerated(chain, examples), x, jr.key(0), reconstruction=ForwardEntropy())
    bits = np.asarray(found, np.float64) / math.log(2)
    assert abs(np.mean(bits) - of_2015) < 3 * np.std(bits) / len(bits) ** 0.5


def test_a_masked_chain_is_a_weighted_sum_of_masked_language_models():
    """Austin et al. 2021, appendix A.3: with beta_k = 1 / (N - k + 1), each masked entry counts 1 / k at step k."""
    chain = AbsorbingChain(3, HarmonicBetas(6))
    network = MLP(network_shape((4,), 4), 16, 1, key=jr.key(0))
    network = eqx.tree_at(lambda network: network.outlet.kernel, network, jr.normal(jr.key(1), (16, 16)))
    model, x0 = CategoricalModel(network, 3, 4, shape=(4,)), jnp.asarray([2, 0, 1, 1])
    table = chain.every_step
    predict = jax.jit(lambda level, x: model.predict(level, x))
    of_term = jax.jit(lambda *arguments: term(chain, *arguments))
    for k, x in ((1, [2, 3, 1, 1]), (3, [3, 3, 1, 3]), (6, [3, 3, 3, 3])):
        step, x = jax.tree.map(lambda numbers, k=k: jnp.asarray(numbers)[k - 1], table), jnp.asarray(x)
        logits = predict(step.level, x)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), x0[:, None], axis=1)[:, 0]
        expected = jnp.sum(jnp.where(x == 3, losses, 0.0)) / k
        np.testing.assert_allclose(of_term(step, x0, x, logits), expected, rtol=2e-5)


@pytest.mark.slow
def test_gradients_are_finite_and_those_of_the_bound():
    """Of each member, at masks and at the prior too."""
    for chain in CHAINS.values():
        model = lookup(chain)

        @jax.jit
        def bound(table, chain=chain, model=model):
            model = eqx.tree_at(lambda model: model.table, model, table)
            return jnp.mean(sgm.categorical_elbo(chain, model, jnp.asarray([[1, 0]] * 50), jr.key(0)))

        gradient = jax.grad(bound)(model.table)
        assert bool(jnp.all(jnp.isfinite(gradient))) and float(jnp.max(jnp.abs(gradient))) > 0
        ahead = 1e-2 * gradient / jnp.linalg.norm(gradient)
        slope = (bound(model.table + ahead) - bound(model.table - ahead)) / 2e-2
        np.testing.assert_allclose(slope, jnp.linalg.norm(gradient), rtol=2e-2)


def test_what_has_no_probability_is_minus_infinity():
    chain = CHAINS["uniform"]
    model = Enumerated(chain, np.asarray([[0, 1], [1, 2]]), np.asarray([1.0, 0.0]))
    found = sgm.categorical_elbo(chain, model, model.examples, jr.key(0))
    assert np.isfinite(found[0]) and np.isneginf(found[1])


def test_what_is_no_category_has_no_bound_where_it_cannot_be_looked_at():
    chain = CHAINS["uniform"]
    found = jax.jit(lambda x: sgm.categorical_elbo(chain, lookup(chain), x, jr.key(0)))(jnp.asarray([[0, 2], [0, 3]]))
    assert np.isfinite(found[0]) and np.isnan(found[1])


def test_leading_axes_and_one_example():
    chain = CHAINS["uniform"]
    model = lookup(chain)
    x = jr.randint(jr.key(0), (2, 5, 2), 0, 3)
    every = sgm.categorical_elbo(chain, model, x, jr.key(1))
    assert every.shape == (2, 5)
    full = sgm.categorical_elbo(chain, model, x[0, 0], jr.key(1), full=True)
    assert full.value.shape == () and full.transitions.shape == (STEPS - 1,)


def test_mistakes_are_answered(types_unchecked):
    chain = CHAINS["uniform"]
    model, x = lookup(chain), jnp.zeros((4, 2), int)
    with pytest.raises(TypeError, match=r"categorical_elbo: chain is a VP; pass an instance such as sgm.BinomialChain"):
        sgm.categorical_elbo(sgm.VP(), model, x, jr.key(0))
    with pytest.raises(ValueError, match="categorical_elbo: steps = 3; pass steps <= 2, or None for all transitions"):
        sgm.categorical_elbo(chain, model, x, jr.key(0), steps=3)
    with pytest.raises(ValueError, match="categorical_elbo: x has dtype float32, but the model is of categories; pass"):
        sgm.categorical_elbo(chain, model, x.astype(float), jr.key(0))
    with pytest.raises(ValueError, match=r"x has entries in 0 \.\.\. 5; pass integers from 0 to 2"):
        sgm.categorical_elbo(chain, model, x.at[0, 0].set(5), jr.key(0))
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\), but the model is of examples of shape \(2,\)"):
        sgm.categorical_elbo(chain, model, jnp.zeros((4, 3), int), jr.key(0))
    with pytest.raises(TypeError, match="elbo: UniformChain is a chain of categories"):
        sgm.elbo(chain, model, x, jr.key(0))
    with pytest.raises(ValueError, match="InformationSteps: share = 0; pass 0 < share <= 1"):
        InformationSteps(0)
