"""Loops of diffusers' pipelines and ours, with one network in closed form, from the same noise."""

import warnings

import diffrax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

import sgm
from sgm.interop.diffusers.scheduler import read_scheduler
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.scheduled import Scheduler

SHAPE = (4, 4, 3)
NOISE = np.asarray(np.random.default_rng(0).normal(size=(2, *SHAPE)), np.float32)

# Their state is x = u / cos(theta), where it is x for the others.
IN_SIGMA_SPACE = ("Euler", "Heun", "LMS", "KDPM2", "EDM")


class Closed(AbstractTimestepNetwork):
    """0.6 x + 0.3 sin(3 x + t / 300), and if it is `doubled` cos(x + t / 300) beside it."""

    doubled: bool = False

    @property
    def shape(self):
        return SHAPE

    @property
    def outputs(self):
        return (1 + self.doubled) * SHAPE[-1]

    @property
    def classes(self):
        return None

    def __call__(self, x, timestep, label=None, key=None):
        mean = 0.6 * x + 0.3 * jnp.sin(3 * x + timestep / 300)
        return jnp.concatenate([mean, jnp.cos(x + timestep / 300)], axis=-1) if self.doubled else mean


def closed(x, t, doubled=False):
    """`Closed` in torch, for images of channels first."""
    import torch

    t = torch.as_tensor(t, dtype=x.dtype)
    mean = 0.6 * x + 0.3 * torch.sin(3 * x + t / 300)
    return torch.cat([mean, torch.cos(x + t / 300)], dim=1) if doubled else mean


def scheduler_of(name, **config):
    """Scheduler of diffusers, and what we make of its whole config."""
    import diffusers

    theirs = getattr(diffusers, name)(**config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theirs, read_scheduler({**theirs.config, "_class_name": name}, "test")


def first_last(x):
    """Images of channels first, from channels last."""
    return np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2))


def their_loop(scheduler, evaluations, between=lambda scheduler, index: None, asked=lambda scheduler, index, t: t):
    """What the loop of a pipeline draws, of channels last.

    `between` is called before each step, and `asked` finds the timestep that the network is asked at.
    """
    import torch

    scheduler.set_timesteps(evaluations)
    x = torch.as_tensor(first_last(NOISE)) * getattr(scheduler, "init_noise_sigma", 1.0)
    for index, t in enumerate(scheduler.timesteps):
        between(scheduler, index)
        inputs = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(closed(inputs, asked(scheduler, index, t)), t, x).prev_sample
    return x.numpy().transpose(0, 2, 3, 1)


def latents(theirs, scheduler: Scheduler, sampler) -> Float[Array, "..."]:
    """Their first state in our coordinates."""
    sde, scale = sampler.process(scheduler.sde), getattr(theirs, "init_noise_sigma", 1.0)
    if type(theirs).__name__.startswith(IN_SIGMA_SPACE):
        scale = float(scale) / np.hypot(1, float(theirs.sigmas[0])) * float(sde.rho(sde.t1))
    return NOISE * jnp.asarray(float(scale), jnp.float32)


def our_loop(theirs, scheduler: Scheduler, evaluations: int, at_level: bool = False):
    """What our sampler draws; `at_level` without its denoised end."""
    theirs.set_timesteps(evaluations)  # Which sets the scale of its noise.
    sampler = scheduler.sampler_of(evaluations)
    model, x1 = scheduler.sampled(scheduler.model(Closed())), latents(theirs, scheduler, sampler)
    saveat = diffrax.SaveAt(t0=True) if at_level else None
    x = sgm.sample(scheduler.sde, model, jr.key(0), x1=x1, method=sampler, saveat=saveat)
    return np.asarray(x[:, 0] if at_level else x)


def gap(ours, theirs):
    """Relative error, in the root mean square."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
