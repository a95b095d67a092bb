"""Models of categories against Bayes' rule over all examples."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.model import CategoricalModel, Enumerated, MarkovSequence, network_shape
from sgm.nn import MLP
from sgm.sde import AbsorbingChain, BinomialChain, HarmonicBetas, UniformChain

EXAMPLES = np.asarray([[0, 0, 1], [1, 0, 1], [1, 1, 0], [0, 2, 1]])
SHARES = np.asarray([0.1, 0.4, 0.2, 0.3])
CHAINS = (UniformChain(3, HarmonicBetas(6)), AbsorbingChain(3, HarmonicBetas(6)))


def bayes(chain, k, x):
    """p(x_0 | x_k) of each entry, by all examples."""
    whole = chain.transition(0, k)
    joint = SHARES * np.prod(whole[EXAMPLES, x], axis=1)
    if not np.sum(joint) > 0:
        return None
    is_of = EXAMPLES[..., None] == np.arange(3)
    return np.einsum("n,ndk->dk", joint / np.sum(joint), is_of)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: type(chain).__name__)
def test_the_exact_model_is_bayes_rule(chain):
    model = Enumerated(chain, EXAMPLES, SHARES)
    found = eqx.filter_jit(model.posterior)
    for k in (1, 3, 6):
        for x in itertools.product(range(chain.states), repeat=3):
            expected = bayes(chain, k, np.asarray(x))
            if expected is not None:
                np.testing.assert_allclose(found(chain, k, jnp.asarray(x)), expected, rtol=1e-4, atol=1e-6)


def test_exact_models_come_back_from_disk(tmp_path):
    chain = UniformChain(3, HarmonicBetas(6)).until(4)
    for model in (
        Enumerated(chain, EXAMPLES, SHARES),
        MarkovSequence(chain, (4,), np.asarray([0.2, 0.3, 0.5]), np.full((3, 3), 1 / 3)),
    ):
        sgm.save(tmp_path / type(model).__name__, chain, model)
        again, found = sgm.load(tmp_path / type(model).__name__, progress=False)
        assert eqx.tree_equal((again, found), (chain, model))


def test_a_markov_sequence_is_all_of_its_examples():
    chain = AbsorbingChain(3, HarmonicBetas(6))
    rng = np.random.default_rng(0)
    initial, transitions = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    model = MarkovSequence(chain, (4, 1), initial, transitions)
    examples = np.asarray(list(itertools.product(range(3), repeat=4)))
    shares = initial[examples[:, 0]] * np.prod(transitions[examples[:, :-1], examples[:, 1:]], axis=1)
    every = Enumerated(chain, examples[..., None], shares)
    np.testing.assert_allclose(jax.vmap(model.log_prob)(every.examples), np.log(shares), rtol=1e-5)
    for k, x in ((1, [0, 1, 3, 2]), (4, [3, 1, 3, 3]), (6, [3, 3, 3, 3])):
        x = jnp.asarray(x)[:, None]
        ours, theirs = (eqx.filter_jit(part.posterior)(chain, k, x) for part in (model, every))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_is_not_masked_is_known():
    chain = AbsorbingChain(3)
    network = MLP(network_shape((4,), 4), 16, 1, key=jr.key(0))
    model = CategoricalModel(lambda *args, **kwargs: network(*args, **kwargs) + 3.0, 3, 4, shape=(4,))
    found = eqx.filter_jit(model.posterior)(chain, 500, jnp.asarray([0, 3, 2, 3]))
    np.testing.assert_array_equal(found[jnp.asarray([0, 2])], np.eye(3)[[0, 2]])
    np.testing.assert_allclose(found[1], np.full(3, 1 / 3), rtol=1e-6)


@pytest.mark.parametrize("chain", [BinomialChain(), UniformChain(4), AbsorbingChain(3)], ids=lambda c: type(c).__name__)
def test_a_network_of_zeros_knows_each_entry_on_its_own(chain):
    shape = (2, 3, 2)
    model = CategoricalModel(lambda level, u, cond, key=None: 0 * u, chain.categories, chain.states, shape=shape)
    x = jr.randint(jr.key(0), shape, 0, chain.states)
    likelihood = chain.transition(0, 700)[: chain.categories, x].transpose(1, 2, 3, 0)
    expected = likelihood / np.sum(likelihood, axis=-1, keepdims=True)
    found = eqx.filter_jit(model.posterior)(chain, 700, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_network_sees_and_answers_each_entry():
    """Entries are told as bits or one for each state, side by side along the last axis."""
    seen = []

    def network(level, u, cond, key=None):
        seen.append(u)
        return jnp.arange(u.size, dtype=jnp.float32).reshape(u.shape)

    bits = CategoricalModel(network, 2, shape=(1, 3))
    np.testing.assert_array_equal(bits.predict(jnp.asarray(0.0), jnp.asarray([[0, 1, 1]]))[0, 2], [0, 2])
    np.testing.assert_array_equal(seen.pop(), [[-1, 1, 1]])
    masked = CategoricalModel(network, 3, 4, shape=(1, 2))
    found = masked.predict(jnp.asarray(0.0), jnp.asarray([[3, 1]]))
    np.testing.assert_array_equal(found, [[[0, 1, 2], [4, 5, 6]]])
    np.testing.assert_array_equal(seen.pop(), [[0, 0, 0, 1, 0, 1, 0, 0]])


def test_mistakes_are_answered(types_unchecked):
    chain, network = BinomialChain(), MLP((4,), 16, 1, key=jr.key(0))
    model = CategoricalModel(network, 2, shape=(4,))
    with pytest.raises(ValueError, match=r"CategoricalModel: the network gets examples of shape \(12,\), but is a MLP"):
        CategoricalModel(network, 3, shape=(4,))
    with pytest.raises(
        ValueError, match="UniformChain has 3 categories and 3 states, but the CategoricalModel is of 2"
    ):
        model.posterior(UniformChain(3), 1, jnp.zeros(4, int))
    with pytest.raises(ValueError, match="posterior: k = 1001; pass a step of the chain, 1 <= k <= 1000"):
        model.posterior(chain, 1001, jnp.zeros(4, int))
    with pytest.raises(ValueError, match="posterior: k = 0; pass k >= 1"):
        model.posterior(chain, 0, jnp.zeros(4, int))
    with pytest.raises(TypeError, match=r"posterior: k = 3\.5"):
        model.posterior(chain, 3.5, jnp.zeros(4, int))
    with pytest.raises(ValueError, match=r"posterior: x has shape \(2, 4\); pass one example"):
        model.posterior(chain, 3, jnp.zeros((2, 4), int))
    with pytest.raises(ValueError, match="CategoricalModel: the number of axes of an example = 0; pass"):
        CategoricalModel(network, 2, shape=())
    with pytest.raises(TypeError, match="Enumerated: examples is a list"):
        Enumerated(chain, [[0, 1]])
    with pytest.raises(ValueError, match="Enumerated: the number of examples = 0; pass"):
        Enumerated(chain, np.zeros((0, 2), int))
    with pytest.raises(TypeError, match="MarkovSequence: initial is a list"):
        MarkovSequence(chain, (3,), [0.5, 0.5], np.eye(2))
    exact = Enumerated(BinomialChain(p=0.3), np.eye(2, dtype=int))
    with pytest.raises(ValueError, match=r"exact for BinomialChain with the target .*; build the model with this"):
        sgm.sample(BinomialChain(p=0.6), exact, jr.key(0))
    with pytest.raises(ValueError, match=r"posterior: x has entries in 0 ... 2; pass integers from 0 to 1"):
        model.posterior(chain, 1, jnp.asarray([0, 1, 2, 0]))
    with pytest.raises(ValueError, match=r"Enumerated: probabilities of shape \(2,\), from 0.1, sum to 0.2; pass 2"):
        Enumerated(chain, np.eye(2, dtype=int), np.asarray([0.1, 0.1]))
    with pytest.raises(ValueError, match="MarkovSequence: initial has shape"):
        MarkovSequence(chain, (3,), np.ones(2), np.eye(2))
    wide = CategoricalModel(lambda level, u, cond, key=None: jnp.zeros(5), 2, shape=(4,))
    with pytest.raises(ValueError, match=r"the network's output has shape .5,., but for examples of shape .4,. with 2"):
        wide.predict(jnp.asarray(0.0), jnp.zeros(4, int))


def test_tools_of_real_numbers_refuse_a_chain_of_categories(types_unchecked):
    model = CategoricalModel(MLP((4,), 16, 1, key=jr.key(0)), 2, shape=(4,))
    with pytest.raises(
        TypeError, match="log_prob: BinomialChain is a chain of categories, and this is of real numbers"
    ):
        sgm.log_prob(BinomialChain(), model, jnp.zeros(4))
    with pytest.raises(TypeError, match=r"DDIM: BinomialChain is .*; pass for it the method sgm.CategoricalAncestral"):
        sgm.sample(BinomialChain(), model, jr.key(0), method=sgm.DDIM(10))
    with pytest.raises(TypeError, match=r"log_prob: model is a CategoricalModel; pass an instance such as sgm.Score"):
        sgm.log_prob(sgm.VP(), model, jnp.zeros(4))
    with pytest.raises(TypeError, match=r"sample: sde is a VP; pass an instance such as sgm.BinomialChain\(\)"):
        sgm.sample(sgm.VP(), model, jr.key(0))
    with pytest.raises(TypeError, match="sample: the first argument is the model CategoricalModel"):
        sgm.sample(model, BinomialChain(), jr.key(0))
