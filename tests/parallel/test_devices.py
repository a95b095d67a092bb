"""The tests run programs, since a process decides on its devices once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TRAINING = """
import json
import jax, jax.numpy as jnp, jax.random as jr, numpy as np, equinox as eqx, optax
import sgm
from sgm.data import GaussianField
from sgm.nn.condition import condition_from
from sgm.parallel.devices import local_mesh, replicate, shard
from sgm.training import LikelihoodWeighting, Loss, UniformTime
from sgm.training.step import Recipe, train_step

data = GaussianField(resolution=8)
conditioning = sgm.nn.Conditioning(params=2, null=True)
network = sgm.nn.UNet((8, 8, 1), 8, (1,), 1, dropout=0.1, conditioning=conditioning, key=jr.key(0))
model = sgm.ScoreModel(network, data=data)
loss = Loss(LikelihoodWeighting(), UniformTime(), condition_dropout=0.2)
how = {"loss": loss, "optimiser": optax.adam(1e-2), "batch_size": 16, "average_decay": 0.9, "accumulate": 2}
sde = sgm.VP(sgm.sde.LearnedLogSNR())
trained, average, history = sgm.train(sde, model, data, jr.key(3), steps=4, log_every=1, progress=False, **how)
weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(average, eqx.is_inexact_array))])
process = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(trained, eqx.is_array))])
mesh = local_mesh()
recipe = Recipe(sgm.VP(), loss, optax.adam(1e-2), jr.key(3), 0.9, None, sgm.likelihood.UniformDequantisation(), 2)
x, fields = data.batch(0, 16, 0)
fixed, whole = (recipe, shard((x, condition_from(fields)), mesh)), replicate(recipe.start(model), mesh)
text = train_step.lower(fixed, whole).compile().compiled.as_text()
print(json.dumps({
    "devices": jax.device_count(), "losses": history["loss"].tolist(), "weights": weights.tolist(),
    "process": process.tolist(),
    "shards": len({str(shard.index) for shard in fixed[1][0].addressable_shards}),
    "images": "f32[16,8,8,8]" in text or "f32[8,8,8,8]" in text, "sums": text.count(" all-reduce("),
}))
"""


# 37 examples and 13 samples, which no number of devices but one shares evenly.
INFERENCE = """
import json, diffrax, jax, jax.numpy as jnp, jax.random as jr, numpy as np
import sgm
from sgm.parallel.devices import local_mesh

sde = sgm.VP()
model = sgm.model.GaussianMixture(jr.normal(jr.key(4), (5, 2)), jnp.linspace(0.1, 0.5, 5), jnp.full(5, 0.2))
x = model.sample(jr.key(0), 37)
# As a checkpoint leaves them: committed to the first device; and a mesh as JAX makes it.
x, model = jax.device_put((x, model), jax.devices()[0])
# Steps so small that one that rounding adds or takes away changes nothing.
controller = diffrax.PIDController(rtol=1e-5, atol=1e-5)
mesh = jax.make_mesh((jax.device_count(),), ("batch",))
result = sgm.log_prob(sde, model, x, jr.key(1), controller=controller, full=True, mesh=mesh)
times = jnp.linspace(1.0, 1e-5, 3)
flow = sgm.ProbabilityFlow(diffrax.Heun(), sgm.solve.FixedSteps(20, sgm.solve.ThetaGrid()))

class Broken(sgm.model.AbstractModel):
    shape: tuple[int, ...] = (2,)

    def predict(self, level, u, cond=None, key=None):
        return sgm.model.from_velocity(level, u, jnp.nan * u)

def message(call):
    try:
        jax.block_until_ready(call())
    except Exception as error:
        return str(error)

adaptive = sgm.ProbabilityFlow(stepping=diffrax.PIDController(rtol=1e-3, atol=1e-3))
gradient = jax.grad(lambda x: sgm.log_prob(sde, model, x, jr.key(1), mesh=local_mesh()).sum())
values = {
    "log_prob": result.value, "stderr": result.stderr, "latent": result.latent,
    "sample": sgm.sample(sde, model, jr.key(2), 13, method=sgm.EulerMaruyama(20)),
    "path": sgm.sample(sde, model, jr.key(2), 13, method=flow, saveat=diffrax.SaveAt(ts=times)),
}
print(json.dumps({
    "devices": jax.device_count(), "nfe": result.nfe.tolist(), "spread": len(result.latent.sharding.device_set),
    "values": jax.tree.map(lambda value: np.asarray(value).tolist(), values),
    "gradient with a mesh": message(lambda: gradient(x)),
    "broken": message(lambda: sgm.sample(sde, Broken(), jr.key(0), 5, method=adaptive)),
    "unfinished": np.isnan(sgm.log_prob(sde, Broken(), x, trace=sgm.Exact())).tolist(),
}))
"""


# A small network, whole on each device and cut over them.
SHARDED = """
import json, jax, jax.numpy as jnp, jax.random as jr, numpy as np, equinox as eqx, optax
import sgm
from sgm.parallel import Sharded, describe, mesh
from sgm.plot.training import sizes_of

data = sgm.data.Digits(label=True)
network = sgm.nn.MLP(data.shape, 32, 2, conditioning=data.conditioning, key=jr.key(0))
model = sgm.ScoreModel(network, data=data)
seen = {}

def look(step, metrics, state):
    leaves = jax.tree.leaves(eqx.filter(state, eqx.is_array))
    whole = sum(leaf.nbytes for leaf in leaves)
    seen["share"] = sum(leaf.addressable_data(0).nbytes for leaf in leaves) / whole
    seen["lines"] = describe(state)
    weights = jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array))
    seen["sizes"] = [sizes_of(arrays).tolist() for arrays in (weights, jax.device_get(weights))]

options = {"steps": 8, "batch_size": 16, "log_every": 4, "progress": False, "optimiser": optax.adam(1e-3)}
options |= {"placement": Sharded(smallest=512), "callbacks": [look]}
made = sgm.train(sgm.VP(), model, data, jr.key(3), mesh=mesh(min(4, jax.device_count())), **options)
leaves = jax.tree.leaves(eqx.filter(made[1], eqx.is_inexact_array))
seen |= {"losses": made[2]["loss"].tolist(), "weights": np.concatenate([np.ravel(leaf) for leaf in leaves]).tolist()}
print(json.dumps(seen))
"""


# 6 and 13 held-out examples, which 8 devices do not share evenly, of a model and of a trained schedule.
HELD_OUT = """
import json, jax, jax.random as jr, numpy as np, optax
import sgm
from jax.sharding import Mesh

losses = {}
for n, sde in ((6, sgm.VP()), (13, sgm.VP(sgm.sde.LearnedLogSNR()))):
    x = np.random.default_rng(0).normal(size=(50 + n, 2))
    data = sgm.data.Arrays(x, held_out=np.arange(50 + n) >= 50)
    model = sgm.ScoreModel(sgm.nn.MLP((2,), 8, 1, key=jr.key(0)), data=data)
    options = {"steps": 1, "batch_size": 16, "progress": False, "optimiser": optax.sgd(1e-3)}
    options["loss"] = sgm.Loss(times=sgm.training.UniformTime())
    for devices in (1, 8):
        mesh = Mesh(np.asarray(jax.devices()[:devices]).reshape(-1, 1), ("data", "model"))
        history = sgm.train(sde, model, data, jr.key(1), mesh=mesh, **options)[2]
        losses[f"{n} examples, {devices} devices"] = float(history["held_out_loss"][-1])
print(json.dumps(losses))
"""


def run(program, *counts):
    """The lines that the program prints, each as JSON, by the number of devices."""
    runs = {}
    for devices in counts:
        flags = {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
        }
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        folder = Path(__file__).parents[2]
        runs[devices] = subprocess.Popen([sys.executable, "-c", program], env=os.environ | flags, cwd=folder, **options)
    outputs = {devices: process.communicate() for devices, process in runs.items()}
    for devices, process in runs.items():
        assert process.returncode == 0, outputs[devices][1][-2000:]
    return {devices: [json.loads(line) for line in output.splitlines()] for devices, (output, _) in outputs.items()}


@pytest.fixture(scope="module")
def trained():
    return {devices: parts[0] for devices, parts in run(TRAINING, 1, 4).items()}


@pytest.fixture(scope="module")
def on_eight():
    """What two programs print on one device and on eight, by their names."""
    names = ("inferred", "cut")
    parts = run(INFERENCE + SHARDED, 1, 8)
    return {name: {devices: parts[devices][place] for devices in parts} for place, name in enumerate(names)}


@pytest.fixture
def inferred(on_eight):
    return on_eight["inferred"]


@pytest.fixture
def cut(on_eight):
    return on_eight["cut"]


@pytest.mark.slow
def test_the_held_out_loss_is_the_same_on_any_number_of_devices():
    losses = run(HELD_OUT, 8)[8][0]
    for n in (6, 13):
        one = losses[f"{n} examples, 1 devices"]
        assert losses[f"{n} examples, 8 devices"] == pytest.approx(one, rel=1e-5)


def trains_as_the_whole(eight, one):
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)
    difference = np.abs(np.subtract(eight["weights"], one["weights"]))
    # Adam divides by the size of a gradient, and so makes the rounding of a small one as large as any.
    assert difference.max() < 1e-3 and np.quantile(difference, 0.99) < 1e-5
    assert one["share"] == 1 and 1 / 8 < eight["share"] < 0.2


def test_a_state_that_is_cut_over_both_axes_trains_as_one_that_is_whole(cut):
    trains_as_the_whole(cut[8], cut[1])


@pytest.mark.slow
def test_a_dit_that_is_cut_over_one_axis_or_both_trains_as_one_that_is_whole():
    of_both = SHARDED.replace("MLP(data.shape, 32, 2,", "DiT((8, 8, 1), 64, 2, 2, 2,")
    of_one = of_both.replace("mesh(min(4, ", "mesh(min(8, ")
    assert of_one != of_both != SHARDED
    parts = run(of_both, 1, 8)
    trains_as_the_whole(parts[8][0], parts[1][0])
    trains_as_the_whole(run(of_one, 8)[8][0], parts[1][0])


def test_the_state_says_how_it_is_cut(cut):
    assert "over model, data along axis" in cut[8]["lines"]


def test_the_sizes_of_weights_are_found_where_they_are(cut):
    there, whole = cut[8]["sizes"]
    np.testing.assert_allclose(there, whole, rtol=1e-5)


@pytest.mark.slow
def test_four_devices_give_the_loss_and_the_parameters_of_one(trained):
    one, four = trained[1], trained[4]
    assert (one["devices"], four["devices"]) == (1, 4)
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(four["process"], one["process"], rtol=1e-4)
    scale = np.abs(one["weights"]).max()
    # Adam divides by the size of a gradient, and so makes the rounding of a small one as large as any.
    assert np.abs(np.subtract(four["weights"], one["weights"])).max() < 1e-3 * scale
    assert np.quantile(np.abs(np.subtract(four["weights"], one["weights"])), 0.99) < 1e-5 * scale


@pytest.mark.slow
def test_each_device_has_its_own_examples(trained):
    assert trained[4]["shards"] == 4
    # All gradients of a part in one message, and the loss of the step. A gradient that is summed in a loop has its own.
    assert trained[4]["sums"] == 2 and trained[1]["sums"] == 0
    # No device holds the features of all examples of a part, nor of the batch.
    assert trained[1]["images"] and not trained[4]["images"]


def test_eight_devices_give_the_likelihoods_and_samples_of_one(inferred):
    one, eight = inferred[1], inferred[8]
    assert (one["devices"], eight["devices"]) == (1, 8) and eight["spread"] == 8
    # Rounding may make a step more or less of six evaluations.
    assert np.abs(np.subtract(eight["nfe"], one["nfe"])).max() <= 6
    for name, value in one["values"].items():
        np.testing.assert_allclose(eight["values"][name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_what_fails_is_said_on_any_number_of_devices(inferred):
    for result in inferred.values():
        assert "solves did not finish within 4096 steps" in result["broken"]
        assert all(result["unfinished"])


def test_a_mesh_inside_a_trace_is_refused(inferred):
    for result in inferred.values():
        assert result["gradient with a mesh"].startswith("log_prob: mesh is given inside jax.jit or jax.grad; leave it")
