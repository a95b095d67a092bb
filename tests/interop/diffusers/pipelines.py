"""A small pipeline of random weights, as diffusers lays one out."""

import json

import jax.random as jr
from networks import randomised

from sgm.interop import diffusers

FIELDS = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 50, "beta_end": 0.1, "clip_sample": False}
INDEX = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.30.0",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def write(path, content):
    """Write JSON, in a folder that is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def random_network(**fields):
    """A `UNet2DModel` of `FIELDS`, but for those that are given, none of whose parameters is zero."""
    named = {name: tuple(value) if isinstance(value, list) else value for name, value in FIELDS.items()}
    fields = named | fields
    return randomised(diffusers.UNet2DModel(**fields, key=jr.key(0)))


def write_pipeline(folder, network):
    """Write a pipeline with this network."""
    diffusers.save_network(folder / "unet", network)
    write(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write(folder / "model_index.json", INDEX)
    return folder
