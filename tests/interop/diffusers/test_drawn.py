"""Images that networks of diffusers draw here are those of its own loop, from the same noise."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from interop.diffusers.loops import first_last, gap

import sgm
from sgm.interop.diffusers import load

WITHOUT = "needs torch and diffusers, on the CPU: pip install torch diffusers"
torch = pytest.importorskip("torch", reason=WITHOUT)
diffusers = pytest.importorskip("diffusers", reason=WITHOUT)

NETWORKS = {
    "UNet2DModel": {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    },
    "DiTTransformer2DModel": {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 3,
        "num_layers": 2,
        "sample_size": 8,
        "num_embeds_ada_norm": 5,
    },
}
LABELS = np.asarray([3, 5], np.int32)  # 5 is the null.
STEPS = 20
# Unclipped noise of a random network is blown up by the first step, by 1 / alpha = 160.
SCHEDULERS = {
    "noise": {"clip_sample": True},
    "velocity": {"clip_sample": False, "prediction_type": "v_prediction"},
}


def random_model(name):
    """A model with every parameter random, whose outputs are about a quarter of unit size."""
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**NETWORKS[name]).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    last = model.conv_out if name == "UNet2DModel" else model.proj_out_2
    for parameter in last.parameters():
        parameter.div_(4)
    return model


@pytest.mark.slow_except("DiTTransformer2DModel-noise")
@pytest.mark.parametrize("prediction", SCHEDULERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_ddim_of_20_steps_draws_the_same_image(name, prediction, tmp_path):
    network, theirs = random_model(name), diffusers.DDIMScheduler(**SCHEDULERS[prediction])
    network.save_pretrained(tmp_path / "network")
    theirs.save_pretrained(tmp_path / "scheduler")
    labelled = name == "DiTTransformer2DModel"
    noise = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)

    theirs.set_timesteps(STEPS)
    x = torch.as_tensor(first_last(noise))
    labels = {"class_labels": torch.as_tensor(LABELS).long()} if labelled else {}
    for t in theirs.timesteps:
        # Of transformers, not a single number.
        x = theirs.step(network(x, t.expand(2) if labelled else t, **labels).sample, t, x).prev_sample
    wanted = x.numpy().transpose(0, 2, 3, 1)
    # Numbers of unit size, few of which are at the ends of what is clipped.
    assert 0.2 < np.sqrt(np.mean(wanted**2)) < 2 and np.mean(np.abs(wanted) == 1) < 0.5

    sde, model, scheduler = load(tmp_path / "network", scheduler=tmp_path / "scheduler", progress=False)
    cond = sgm.Condition(label=jnp.minimum(LABELS, 4), dropped=jnp.asarray(LABELS == 5)) if labelled else None
    sampler, sampled = scheduler.sampler_of(STEPS), scheduler.sampled(model)
    found = sgm.sample(sde, sampled, jr.key(0), x1=noise, method=sampler, cond=cond)
    assert gap(np.asarray(found), wanted) < 1e-3
