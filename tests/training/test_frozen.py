"""Training of a part of a model."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import pytest

import sgm
from sgm.data import Checkerboard
from sgm.interop.diffusers import UNet2DModel
from sgm.interop.timestep import EDMTimesteps, OfTimesteps
from sgm.sde import LearnedLogSNR
from sgm.training import Adam, KarrasWeighting, Loss, Muon, NormalLogSNR, RunMismatch
from sgm.training.step import all_but

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

DATA = Checkerboard()
LOSS = Loss(KarrasWeighting(), NormalLogSNR())


def model():
    return sgm.ScoreModel(sgm.nn.MLP((2,), 8, 2, key=jr.key(0)), sgm.model.Karras(), data=DATA)


def blocks(model):
    return model.network.blocks


def ends(model):
    return [model.network.embedding, model.network.inlet, model.network.outlet]


def train(frozen, *, sde=sgm.VP(), loss=LOSS, optimiser=Adam(1e-2, warmup=1), **options):
    settings = {"steps": 3, "batch_size": 16, "average_decay": 0.9, "progress": False, **options}
    return sgm.train(sde, model(), DATA, jr.key(1), loss=loss, optimiser=optimiser, frozen=frozen, **settings)


def leaves(part):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(part, eqx.is_inexact_array))]


@pytest.mark.slow_except("blocks-ends-optimiser1")
# Decay of the weights would move frozen ones whose gradients are zero.
@pytest.mark.parametrize("optimiser", [Adam(1e-2, warmup=1), Muon(1e-2, warmup=1, weight_decay=0.5)])
@pytest.mark.parametrize(("frozen", "others"), [(blocks, ends), (ends, blocks)])
def test_frozen_parts_stay_and_the_others_are_trained(frozen, others, optimiser):
    trained = train(frozen, optimiser=optimiser)[1]
    for before, after in zip(leaves(frozen(model())), leaves(frozen(trained)), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not eqx.tree_equal(others(trained), others(model()))


def test_the_optimiser_has_no_state_of_frozen_parts():
    sizes = []

    def note(step, metrics, state):
        moments = optax.tree.get(state.opt_state, "mu")
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(moments)))

    train(blocks, callbacks=[note], log_every=3)
    assert sizes == [sum(leaf.size for leaf in leaves(ends(model())))]


@pytest.mark.slow
def test_a_learned_schedule_is_trained_beside_frozen_weights():
    sde = sgm.VP(LearnedLogSNR(), t0=1e-3)
    loss = Loss(sgm.training.LikelihoodWeighting(), sgm.training.UniformTime())
    process, trained, _ = train(blocks, sde=sde, loss=loss)
    assert not eqx.tree_equal(process, sde)
    assert eqx.tree_equal(blocks(trained), blocks(model()))
    assert not eqx.tree_equal(ends(trained), ends(model()))


def test_a_run_is_not_gone_on_with_with_other_parts_frozen(tmp_path):
    train(blocks, run=tmp_path)
    with pytest.raises(RunMismatch, match="trained"):
        train(ends, run=tmp_path)
    with pytest.raises(RunMismatch, match="trained"):
        train(None, run=tmp_path)
    assert eqx.tree_equal(train(blocks, run=tmp_path)[1], train(blocks)[1])


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (lambda model: model.network.layers, "fails on the model .AttributeError: .*layers"),
        (lambda model: jr.key(0), "gives PRNGKeyArray, which are no separate parts of the model"),
        (lambda model: None, "gives None, which are no"),
        (lambda model: [model.network.blocks, None], "gives list, None, which are no"),
        (lambda model: [model.network, model.network.blocks], "gives MLP, list, which are no separate parts"),
        (lambda model: [], "gives no weights of the model, so that nothing is frozen"),
        (lambda model: model.units, "gives no weights"),
        (lambda model: model, "gives all weights of the model, so that nothing is trained"),
    ],
)
def test_what_is_no_part_of_the_model_is_refused(frozen, message):
    with pytest.raises(ValueError, match=f"train: frozen {message}.*") as caught:
        train(frozen)
    assert str(caught.value).endswith("model.network.embedding; model.network has embedding, inlet, blocks, outlet.")
    assert "\n" not in str(caught.value)


def test_the_parts_of_a_loaded_network_are_named():
    """Through what makes it a network of the noise level, though its path is longer."""
    network = UNet2DModel(
        8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        key=jr.key(0),
    )
    loaded = sgm.ScoreModel(OfTimesteps(network, EDMTimesteps()), sgm.model.Karras(), shape=network.shape)
    found = r"lambda model: model\.network\.network\.conv_in; model\.network\.network has conv_in, time_embedding, "
    with pytest.raises(ValueError, match=found + "down_blocks, mid_block, up_blocks, conv_norm_out, conv_out"):
        all_but(lambda model: model.network.blocks, loaded)


def test_a_model_without_weights_has_none_to_freeze():
    bare = eqx.filter(model(), lambda leaf: False)
    with pytest.raises(ValueError, match="frozen is given, but the model has no weights"):
        all_but(blocks, bare)
