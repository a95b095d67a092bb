"""Each test runs a program of its own, since a process decides on its devices once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

PROGRAM = """
import json, pathlib, sys, tempfile
import jax, jax.numpy as jnp, jax.random as jr, numpy as np, equinox as eqx
import sgm
from sgm.data import GaussianField
from sgm.loss import LikelihoodWeighting, UniformLogSNR
from sgm.model.condition import condition_from
from sgm.nn import Conditioning, with_statistics
from sgm.parallel import local_mesh, replicate, shard
from sgm.train import Recipe, adam, train, train_step

data = GaussianField(resolution=8)
conditioning = Conditioning(params=2, null=True)
network = sgm.nn.UNet((8, 8, 1), 8, (1,), 1, dropout=0.1, conditioning=conditioning, key=jr.key(0))
model = sgm.ScoreModel(with_statistics(network, *data.statistics()), sgm.model.Karras(1.0), shape=(8, 8, 1))
recipe = Recipe(
    sde=sgm.VP(), weighting=LikelihoodWeighting(), times=UniformLogSNR(), optimiser=adam(1e-2, 1, 8, 1.0),
    average_decay=0.9, levels=None, key=jr.key(3), condition_dropout=0.2, accumulate=2,
)

def batches(start, stop):
    for step in range(start, stop):
        x, fields = data.batch(step, 16, 0)
        yield x, condition_from(fields)

folder = pathlib.Path(tempfile.mkdtemp())
state = train(recipe, recipe.start(model), batches, 4, folder)
losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(state.average, eqx.is_inexact_array))])
mesh = local_mesh()
fixed, whole = (recipe, shard(next(batches(0, 1)), mesh)), replicate(recipe.start(model), mesh)
text = train_step.lower(fixed, whole).compile().compiled.as_text()
print(json.dumps({
    "devices": jax.device_count(), "losses": losses, "weights": weights.tolist(),
    "shards": len({str(shard.index) for shard in fixed[1][0].addressable_shards}),
    "images": "f32[16,8,8,8]" in text or "f32[8,8,8,8]" in text, "sums": "all-reduce" in text,
}))
"""


@pytest.fixture(scope="module")
def results():
    runs = {}
    for devices in (1, 4):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        flags |= {
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        folder = Path(__file__).parent.parent
        runs[devices] = subprocess.Popen([sys.executable, "-c", PROGRAM], env=os.environ | flags, cwd=folder, **options)
    outputs = {devices: process.communicate() for devices, process in runs.items()}
    for devices, process in runs.items():
        assert process.returncode == 0, outputs[devices][1][-2000:]
    return {devices: json.loads(output.splitlines()[-1]) for devices, (output, _) in outputs.items()}


def test_four_devices_give_the_loss_and_the_parameters_of_one(results):
    one, four = results[1], results[4]
    assert (one["devices"], four["devices"]) == (1, 4)
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=1e-5)
    scale = np.abs(one["weights"]).max()
    # Adam divides by the size of a gradient, and so makes the rounding of a small one as large as any.
    assert np.abs(np.subtract(four["weights"], one["weights"])).max() < 1e-3 * scale
    assert np.quantile(np.abs(np.subtract(four["weights"], one["weights"])), 0.99) < 1e-5 * scale


def test_each_device_has_its_own_examples(results):
    assert results[4]["shards"] == 4 and results[4]["sums"]
    assert not results[1]["sums"]
    # No device holds the features of all examples of a part, nor of the batch.
    assert results[1]["images"] and not results[4]["images"]
