"""A transformer of variables, of which any can be observed or missing."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import LEVEL, call, largest_change, predict, randomised

import sgm
from sgm.model import Karras, Unobserved, WithVariance
from sgm.nn import MLP, Conditioning, Transformer
from sgm.training import FixedEntries, UniformSubsets

NAN = jnp.nan
U = jr.normal(jr.key(1), (5,))


def build(**options):
    conditioning = options.pop("conditioning", Conditioning(observed=5))
    return Transformer((5,), 16, 2, 2, conditioning=conditioning, key=jr.key(0), **options)


def model_of(**options):
    units = sgm.Units(mean=jnp.arange(5.0), std=jnp.linspace(0.5, 2.5, 5))
    return sgm.ScoreModel(randomised(build(**options)), Karras(), shape=(5,), units=units)


OBSERVED = sgm.Condition(observed=jnp.asarray([NAN, 2.0, NAN, NAN, 0.5]))


def test_a_new_network_returns_zero_and_then_depends_on_all():
    np.testing.assert_array_equal(call(build(), LEVEL, U), 0)
    network = randomised(build(outputs=2, frequencies=2))
    assert call(network, LEVEL, U).shape == (10,)
    jacobian = jax.jit(jax.jacrev(lambda u: network(LEVEL, u)))(U)
    assert bool(jnp.all(jacobian != 0))
    assert largest_change(call(network, LEVEL + 1, U), call(network, LEVEL, U)) > 1e-3
    first, second = jnp.split(call(network, LEVEL, U), 2)
    assert largest_change(first, second) > 1e-2
    model = sgm.ScoreModel(network, WithVariance(Karras()), shape=(5,))
    assert predict(model, LEVEL, U).log_variance.shape == (5,)


def test_the_observed_are_read_in_the_place_of_u():
    network = randomised(build())
    output = call(network, LEVEL, U, OBSERVED)
    other = U.at[jnp.asarray([1, 4])].set(7.0)  # where they are observed
    np.testing.assert_array_equal(call(network, LEVEL, other, OBSERVED), output)
    assert largest_change(call(network, LEVEL, U), output) > 1e-3
    # An entry observed is not one that has this value under the noise.
    values = jnp.where(jnp.isnan(OBSERVED.observed), U, OBSERVED.observed)
    assert largest_change(call(network, LEVEL, values), output) > 1e-3
    nothing = sgm.Condition(observed=jnp.full(5, NAN))
    np.testing.assert_array_equal(call(network, LEVEL, U, nothing), call(network, LEVEL, U))


def test_no_entry_attends_to_a_missing_one():
    network, u = randomised(build()), U.at[2].set(NAN)
    output = call(network, LEVEL, u)
    assert bool(jnp.all(jnp.isfinite(output)))
    assert largest_change(output, call(network, LEVEL, U.at[2].set(0.0))) > 1e-3
    # As a network of the others alone.
    kept = jnp.asarray([0, 1, 3, 4])
    alone = Transformer((4,), 16, 2, 2, conditioning=Conditioning(observed=4), key=jr.key(0))

    def parts(net):
        of_level = net.embedding.first, net.embedding.second
        return *of_level, net.inlet, net.blocks, net.modulation, net.outlet, net.identities

    alone = eqx.tree_at(parts, alone, (*parts(network)[:-1], network.identities[kept]))
    np.testing.assert_allclose(output[kept], call(alone, LEVEL, U[kept]), rtol=1e-5, atol=1e-5)
    assert bool(jnp.all(jnp.isfinite(call(network, LEVEL, jnp.full(5, NAN)))))


def test_observed_entries_are_estimated_by_what_they_are():
    model, level = model_of(), jnp.asarray(0.4)
    estimate = predict(model, level, U, OBSERVED)
    z = model.units.standardise(OBSERVED.observed)
    cos, sin = jnp.cos(jnp.arctan(jnp.exp(level))), jnp.sin(jnp.arctan(jnp.exp(level)))
    known = jnp.asarray([1, 4])
    np.testing.assert_allclose(estimate.denoised[known], z[known], rtol=1e-6)
    np.testing.assert_allclose((cos * estimate.denoised + sin * estimate.noise)[known], U[known], rtol=1e-5)
    np.testing.assert_allclose(
        (cos * estimate.noise - sin * estimate.denoised)[known], estimate.velocity[known], rtol=1e-5
    )


def test_samples_have_the_observed_values_in_their_own_units():
    draw = sgm.sample(sgm.VP(), model_of(), jr.key(0), 6, cond=OBSERVED, method=sgm.DDIM(3))
    np.testing.assert_allclose(draw[:, jnp.asarray([1, 4])], jnp.tile(jnp.asarray([2.0, 0.5]), (6, 1)), rtol=1e-5)
    each = sgm.Condition(observed=jnp.stack([OBSERVED.observed, jnp.full(5, NAN)]))
    draws = sgm.sample(sgm.VP(), model_of(), jr.key(0), 2, cond=each, method=sgm.DDIM(3))
    assert float(draws[0, 1]) == pytest.approx(2.0, rel=1e-5)
    assert float(draws[1, 1]) != pytest.approx(2.0, rel=1e-2)


@pytest.mark.slow
def test_the_unobserved_alone_are_a_model():
    model, u = model_of(), U[jnp.asarray([0, 2, 3])]
    rest = Unobserved(model, (4, 1), jnp.asarray([0.5, 2.0]))
    assert rest.shape == (3,) and rest.unobserved == (0, 2, 3)
    whole = predict(model, LEVEL, jnp.zeros(5).at[jnp.asarray([0, 2, 3])].set(u), OBSERVED)
    ours = predict(rest, LEVEL, u)
    for name in ("denoised", "noise", "velocity"):
        np.testing.assert_allclose(getattr(ours, name), getattr(whole, name)[jnp.asarray([0, 2, 3])], rtol=1e-6)
    np.testing.assert_allclose(rest.units.mean.value, [0, 2, 3])
    np.testing.assert_allclose(rest.units.std.value, [0.5, 1.5, 2.0])
    each = Unobserved(model, (4, 1), sgm.model.PerExample(jnp.asarray([[0.5, 2.0], [1.0, 3.0]])))
    both = sgm.sample(sgm.VP(), each, jr.key(0), 2, method=sgm.DDIM(3))
    one = sgm.sample(sgm.VP(), rest, jr.key(0), 2, method=sgm.DDIM(3))
    np.testing.assert_allclose(both[0], one[0], rtol=1e-4, atol=1e-5)
    assert largest_change(both[1], one[1]) > 1e-4


class TestMasking:
    def test_every_subset_is_drawn_as_often_as_another_of_its_size(self):
        masks = np.asarray(jax.vmap(lambda key: UniformSubsets().mask(key, (4,)))(jr.split(jr.key(0), 8000)))
        sizes = masks.sum(1)
        np.testing.assert_allclose(np.bincount(sizes, minlength=5) / 8000, [0.25] * 4 + [0], atol=0.02)
        codes = np.bincount((masks[sizes == 2] @ [8, 4, 2, 1]), minlength=16)
        np.testing.assert_allclose(codes[codes > 0] / codes.sum(), np.full(6, 1 / 6), atol=0.03)

    def test_fixed_entries(self):
        np.testing.assert_array_equal(FixedEntries((2, 0)).mask(jr.key(0), (4,)), [True, False, True, False])
        with pytest.raises(ValueError, match=r"FixedEntries: observed = \(4,\), but the examples have shape \(4,\)"):
            FixedEntries((4,)).mask(jr.key(0), (4,))
        with pytest.raises(ValueError, match="one or more different positions"):
            FixedEntries((1, 1))
        with pytest.raises(ValueError, match=r"observed = \(1, 0\) are all entries of .*, and none is left to learn"):
            FixedEntries((1, 0)).mask(jr.key(0), (2,))

    @pytest.mark.usefixtures("types_unchecked")
    def test_fixed_entries_are_any_sequence_of_integers(self):
        for observed in ([2, 0], np.asarray([2, 0]), jnp.asarray([2, 0])):
            assert FixedEntries(observed) == FixedEntries((2, 0))
        for wrong in (1, (0.5,), "ab"):
            with pytest.raises(
                TypeError, match=r"FixedEntries: observed = .*; pass a tuple of numbers, such as \(2, 3"
            ):
                FixedEntries(wrong)

    @pytest.mark.slow
    @pytest.mark.usefixtures("standard_promotion")  # on which optax relies
    def test_a_network_of_observed_entries_that_is_trained_without_a_masking_is_told(self):
        data = sgm.data.Arrays(np.random.default_rng(0).normal(size=(64, 5)))
        how = {"steps": 1, "batch_size": 8, "progress": False}
        with pytest.warns(UserWarning, match=r"train: .*observed=\.\.\..*; pass loss=sgm\.Loss\(masking=.*UniformSubs"):
            sgm.train(sgm.VP(), sgm.ScoreModel(build(), data=data), data, jr.key(0), **how)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = sgm.Loss(masking=UniformSubsets())
            sgm.train(sgm.VP(), sgm.ScoreModel(build(), data=data), data, jr.key(0), loss=loss, **how)

    def test_the_error_of_observed_and_of_missing_entries_is_none(self):
        model, sde = model_of(), sgm.VP()
        x = model.units.restore(jr.normal(jr.key(3), (64, 5)))

        def gradient(loss, x):
            return jax.jit(jax.grad(lambda x: loss(sde, model, x, jr.key(4))))(x)

        def errors(loss, x):
            def both(x):
                drawn = loss.perturb(sde, model, model.units.standardise(x), jr.key(4))
                return drawn, loss.errors(sde, model, drawn)

            return eqx.filter_jit(both)(x)

        loss = sgm.Loss(masking=FixedEntries((0, 1, 2, 3)))
        drawn, found = errors(loss, x)
        np.testing.assert_allclose(drawn.cond.observed[:, :4], x[:, :4], rtol=1e-5, atol=1e-5)

        @eqx.filter_jit
        @jax.vmap
        def estimate(level, x, noise, cond):
            return model.predict(level, sgm.sde.cos_of(level) * x + sgm.sde.sin_of(level) * noise, cond)

        estimate = estimate(drawn.levels[0], drawn.x0, drawn.noise, drawn.cond)
        by_hand = drawn.levels[1] * (estimate.noise - drawn.noise)[:, 4] ** 2 / 5
        np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-6)
        # Missing ones leave a finite loss, to which they add nothing.
        missing = x.at[:, 2].set(NAN)
        value = jax.jit(lambda x: sgm.Loss()(sde, model, x, jr.key(4)))(missing)
        assert bool(jnp.isfinite(value)) and float(value) > 0
        assert bool(jnp.all(jnp.isfinite(gradient(sgm.Loss(), missing)[:, 0])))


def test_what_has_no_meaning_is_refused():
    model = model_of()
    with pytest.raises(ValueError, match=r"has no density; .*model\.Unobserved\(model, positions, values\)"):
        sgm.log_prob(sgm.VP(), model, U, cond=OBSERVED, trace=sgm.Exact())
    with pytest.raises(ValueError, match=r"cond.observed has infinite entries"):
        sgm.sample(sgm.VP(), model, jr.key(0), 2, cond=sgm.Condition(observed=jnp.asarray([jnp.inf] * 5)))
    with pytest.raises(ValueError, match=r"cond.observed has shape \(4,\), but the network was built for \(5,\)"):
        sgm.sample(sgm.VP(), model, jr.key(0), 2, cond=sgm.Condition(observed=jnp.zeros(4)))
    with pytest.raises(ValueError, match="cond has `observed`, but the network has no entries that can be observed"):
        plain = sgm.ScoreModel(MLP((5,), 8, 1, key=jr.key(0)), shape=(5,))
        sgm.sample(sgm.VP(), plain, jr.key(0), 2, cond=OBSERVED)
    with pytest.raises(ValueError, match="observed entries are for a Transformer alone"):
        MLP((5,), 8, 1, conditioning=Conditioning(observed=5), key=jr.key(0))
    with pytest.raises(ValueError, match=r"Transformer: shape = \(8, 8, 1\); pass \(variables,\)"):
        Transformer((8, 8, 1), key=jr.key(0))
    with pytest.raises(ValueError, match="observed = 3 for examples of 5 variables"):
        build(conditioning=Conditioning(observed=3))
    with pytest.raises(ValueError, match=r"observed = \(0, 5\), but the examples have 5 entries"):
        Unobserved(model, (0, 5), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"values have shape \(3,\), but 2 entries are observed"):
        Unobserved(model, (0, 1), jnp.zeros(3))


@pytest.mark.usefixtures("types_unchecked")
def test_positions_of_observed_entries_may_be_an_array():
    for observed in ([4, 1], np.asarray([4, 1]), jnp.asarray([4, 1])):
        rest = Unobserved(model_of(), observed, jnp.asarray([0.5, 2.0]))
        assert rest.observed == (4, 1) and rest.unobserved == (0, 2, 3)
    for wrong in (1, (0.5, 2.0), "ab"):
        with pytest.raises(TypeError, match=r"Unobserved: observed = .*; pass a tuple of numbers, such as \(0, 3\)"):
            Unobserved(model_of(), wrong, jnp.zeros(2))
