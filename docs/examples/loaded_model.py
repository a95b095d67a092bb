"""What a model of diffusers is for, once it is loaded: likelihoods, latents, inpainting, gradients.

    python docs/examples/loaded_model.py google/ddpm-cifar10-32 images.npz

The first is the name of a model on the hub, or a folder; the second has uint8 images of the model's size as `x`. It
prints the bits per dimension of the images with their standard error, how far `decode` is from undoing `encode`, the
error of the hidden half of an image after inpainting by MMPS beside that of the half that was seen, and the gradient of
a sample's brightness by its latent through 20 steps of DDIM.

`decode` ends at t0 and gives x there, not E[x0 | x], with which `sgm.sample` ends. So decode(encode(x)) - x has no part
of the denoising: all of it is the solver's error, and rounding.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, UInt8

import sgm
from sgm.likelihood import dequantise
from sgm.model import AbstractModel
from sgm.posterior import MMPS, Linear
from sgm.sde import AbstractSDE

Images = Float[Array, "n height width channels"]
# Level k of 256 is k / 127.5 - 1 to diffusers: the middle of its bin.
LOW, HIGH = -1 - 1 / 255, 1 + 1 / 255
STD = 0.02  # of the noise of what is seen


def bits(sde: AbstractSDE, model: AbstractModel, levels: UInt8[np.ndarray, "n height width channels"]) -> Any:
    """Mean of the images' bits per dimension, and its standard error: of images and of the trace's probes."""
    x = dequantise(levels, 256, jr.key(0), LOW, HIGH)
    log_p = sgm.log_prob(sde, model, x, jr.key(1), trace=sgm.Hutchinson(), full=True).value
    found = sgm.bits_per_dim(log_p, x[0].size, low=LOW, high=HIGH)
    return found.mean(), found.std(ddof=1) / len(found) ** 0.5


def round_trip(sde: AbstractSDE, model: AbstractModel, x: Images) -> Float[Array, ""]:
    """Largest difference between images and what is decoded of their latents."""
    return jnp.max(jnp.abs(sgm.decode(sde, model, sgm.encode(sde, model, x)) - x))


def inpainted(sde: AbstractSDE, model: AbstractModel, x: Images, method: MMPS = MMPS(iterations=4)) -> Images:
    """Images whose right half is drawn given the left."""
    width = model.shape[1]
    seen = jnp.arange(width)[:, None] < width // 2
    y = x + STD * jr.normal(jr.key(2), x.shape)
    evidence = Linear(lambda x: jnp.where(seen, x, 0.0), jnp.where(seen, y, jnp.nan), STD)
    return sgm.sample_posterior(sde, model, evidence, jr.key(3), method=method)


def gradient(sde: AbstractSDE, model: AbstractModel, latent: Float[Array, "height width channels"]) -> Any:
    """The brightness of the sample of a latent by 20 steps of DDIM, and its gradient by the latent."""

    def brightness(latent):
        return sgm.sample(sde, model, jr.key(0), x1=latent, method=sgm.DDIM(20)).mean()

    return jax.value_and_grad(brightness)(latent)


def main(name: str, path: Path, count: int = 16) -> dict[str, float]:
    """Print the four, and return them."""
    sde, model = sgm.load(name)
    levels = np.load(path)["x"][:count]
    x = jnp.asarray(levels) / 127.5 - 1
    mean, stderr = bits(sde, model, levels)
    error, half = jnp.abs(inpainted(sde, model, x) - x), model.shape[1] // 2
    value, by_latent = gradient(sde, model, sde.prior.sample(jr.key(4), model.shape))
    found = {
        "bits per dimension": mean,
        "its standard error": stderr,
        "decode(encode(x)) - x, at most": round_trip(sde, model, x),
        "mean error of the hidden half": error[:, :, half:].mean(),
        "mean error of the half that was seen": error[:, :, :half].mean(),
        "brightness of a sample": value,
        "norm of its gradient": jnp.linalg.norm(by_latent),
    }
    for what, number in found.items():
        print(f"{what}: {float(number):.4g}")
    return {what: float(number) for what, number in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of a model on the hub, or a folder")
    parser.add_argument("path", type=Path, help="file of NumPy (.npz) with uint8 images of the model's size as x")
    parser.add_argument("--count", type=int, default=16, help="number of images, 2 or more, the first of the file")
    given = parser.parse_args()
    if not given.path.is_file():
        parser.error(f"path {given.path} is no file; pass one that np.savez(path, x=images) wrote")
    main(**vars(given))
