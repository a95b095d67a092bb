import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from networks import LEVEL

import sgm
from sgm.nn import Conditioning, Frozen, with_statistics
from sgm.sde import linear_betas

# optax promotes types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

MEAN, STD = np.asarray([0.1, 300.0], np.float32), np.asarray([3.0, 1e-3], np.float32)
SHAPE = (3,)
CHAIN = sgm.DiscreteChain(linear_betas(50))
X, COND = jr.normal(jr.key(1), (16, *SHAPE)), sgm.Condition(params=jr.normal(jr.key(2), (16, 2)))
STEPS = 200


def network(key=jr.key(0)):
    return sgm.nn.MLP(SHAPE, 8, 1, conditioning=Conditioning(params=2), key=key)


def start():
    """A chain and a model, trained as one pytree."""
    return CHAIN, sgm.ScoreModel(with_statistics(network(), MEAN, STD), sgm.model.Noise(), shape=SHAPE)


def loss(pair, key):
    return sgm.score_matching_loss(*pair, X, key, cond=COND)


def by_adamw():
    optimiser = optax.adamw(1e-3, weight_decay=0.5)
    pair = start()
    state = optimiser.init(eqx.filter(pair, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(pair, state, key):
        weights = eqx.filter(pair, eqx.is_inexact_array)
        updates, state = optimiser.update(eqx.filter_grad(loss)(pair, key), state, weights)
        return eqx.apply_updates(pair, updates), state

    for key in jr.split(jr.key(3), STEPS):
        pair, state = step(pair, state, key)
    return pair


def by_hand():
    @eqx.filter_jit
    def step(pair, key):
        def descend(gradient, leaf):
            return leaf if gradient is None else 0.999 * leaf - 1e-3 * gradient

        return jax.tree.map(descend, eqx.filter_grad(loss)(pair, key), pair, is_leaf=lambda leaf: leaf is None)

    pair = start()
    for key in jr.split(jr.key(3), STEPS):
        pair = step(pair, key)
    return pair


def averaged():
    @eqx.filter_jit
    def average(mean, new):
        return jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b if eqx.is_inexact_array(a) else a, mean, new)

    mean, new = start(), jax.tree.map(lambda leaf: leaf + 1 if eqx.is_inexact_array(leaf) else leaf, start())
    for _ in range(STEPS):
        mean = average(mean, new)
    return mean


@pytest.mark.parametrize("loop", [by_adamw, by_hand, averaged])
def test_a_loop_of_the_users_own_leaves_statistics_and_tables_as_they_are(loop):
    (first_chain, first), (chain, model) = start(), loop()
    assert not np.array_equal(first.network.embedding.params.kernel, model.network.embedding.params.kernel)
    np.testing.assert_array_equal(model.network.embedding.standardisation.mean.value, MEAN)
    np.testing.assert_array_equal(model.network.embedding.standardisation.std.value, STD)
    np.testing.assert_array_equal(chain.betas.values, first_chain.betas.values)
    np.testing.assert_array_equal(chain.schedule.increments, -np.log1p(-linear_betas(50)))


def test_arithmetic_on_the_bits_is_named():
    spoilt = jax.tree.map(lambda leaf: leaf * 0.5, Frozen(jnp.ones(2)))
    with pytest.raises(TypeError, match=r"Frozen: the bits have become float32, .* not is_array"):
        _ = spoilt.value


def test_other_types_are_named():
    with pytest.raises(TypeError, match="Frozen: the value has dtype int32; pass float32 or float64"):
        Frozen(jnp.arange(3))


def test_both_precisions_are_kept_to_the_bit(float64):
    for kind in (np.float32, np.float64):
        value = np.asarray([0.1, -3e-30, np.pi, np.inf], kind)
        kept = eqx.filter_jit(lambda frozen: frozen.value)(Frozen(value))
        assert kept.dtype == kind
        np.testing.assert_array_equal(kept, value)


def test_an_ensemble_has_the_statistics_in_every_member():
    ensemble = with_statistics(eqx.filter_jit(eqx.filter_vmap(network))(jr.split(jr.key(0), 3)), MEAN, STD)
    assert ensemble.embedding.standardisation.mean.value.shape == (3, 2)
    cond = sgm.Condition(params=jnp.asarray([1.0, 2.0]))
    embed = eqx.filter_jit(lambda one: one.embedding(LEVEL, cond))
    together = eqx.filter_vmap(embed, in_axes=eqx.if_array(0))(ensemble)
    for member, key in enumerate(jr.split(jr.key(0), 3)):
        alone = embed(with_statistics(network(key), MEAN, STD))
        np.testing.assert_allclose(together[member], alone, rtol=1e-5)


def test_a_network_cast_to_double_precision_reads_its_parameters_in_it(float64):
    model = with_statistics(network(), MEAN, STD)
    frozen = jax.tree.leaves(model.embedding.standardisation)
    double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, model)
    for before, after in zip(frozen, jax.tree.leaves(double.embedding.standardisation), strict=True):
        np.testing.assert_array_equal(before, after)
    with jax.numpy_dtype_promotion("strict"):
        cond = sgm.Condition(params=jnp.asarray([1.0, 2.0]))
        assert double.embedding(jnp.asarray(0.3, jnp.float64), cond).dtype == jnp.float64
