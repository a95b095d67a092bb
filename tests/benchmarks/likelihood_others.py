"""The likelihood of exact models by this library and by others in PyTorch: their errors side by side, in Markdown.

    pip install torch==2.13.0
    pip install --no-deps --target FOLDER flow_matching==1.0.10 k-diffusion==0.1.1.post1 torchdiffeq==0.2.5 \
        torchsde==0.2.6 trampoline==0.1.2
    git clone https://github.com/yang-song/score_sde_pytorch SCORE_SDE
    PYTHONPATH=FOLDER python tests/benchmarks/likelihood_others.py SCORE_SDE

Each library is called as its users call it, with the tolerance that is its default, and is given the exact score,
denoiser or velocity of its own process in its own precision. So the errors are those of the solve, of the probe of the
trace, of the process's ends and of rounding. The truth is log p(x0).

Errors are in nats, over 256 draws of the model; evaluations are of the model, and where all examples share their steps,
those of the batch.
"""

import importlib
import math
import sys
import types

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import torch
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper

import sgm

EXAMPLES = 256
MODELS = {
    "mixture, 2-D": (jr.normal(jr.key(4), (5, 2)), jnp.linspace(0.1, 0.5, 5)),
    "mixture, 16-D": (jr.normal(jr.key(5), (4, 16)), jnp.linspace(0.1, 0.5, 4)),
    "narrow Gaussian, 16-D": (jnp.zeros((1, 16)), jnp.asarray([0.01])),
}


def posterior_mean(means, stds, x, alpha, sigma):
    """E[x0 | x] of x = alpha x0 + sigma noise under a mixture of equal weights, in PyTorch; alpha, sigma of (n, 1)."""
    variance = (alpha * stds) ** 2 + sigma**2  # (n, parts)
    apart = x[:, None] - alpha[..., None] * means
    logits = -0.5 * (apart**2).sum(-1) / variance - 0.5 * means.shape[-1] * torch.log(variance)
    of_part = means + (alpha * stds**2 / variance)[..., None] * apart
    return (torch.softmax(logits, -1)[..., None] * of_part).sum(1)


def by_flow_matching(means, stds, x):
    """Rectified flow from t = 0, noise, to t = 1, data."""

    class Velocity(ModelWrapper):
        def forward(self, x, t, **extras):
            alpha, sigma = (part.reshape(-1, 1).expand(len(x), 1) for part in (t, 1 - t))
            denoised = posterior_mean(means, stds, x, alpha, sigma)
            # (x0 - noise) as its mean given x. At t = 1 it is x0 less a noise of which x tells nothing.
            return torch.where(sigma > 0, (denoised - x) / sigma.clamp(min=1e-30), x)

    calls = counted(velocity := Velocity(torch.nn.Identity()))

    def normal(x):
        return -0.5 * (x**2).sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)

    how = {"method": "dopri5", "step_size": None, "exact_divergence": True}
    return ODESolver(velocity).compute_likelihood(x, normal, **how)[1], calls()


def by_k_diffusion(means, stds, x):
    """Karras's process, noise of 0.002 to 80. Its module of samplers alone is loaded: the rest needs much else."""
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = [f"{folder}/k_diffusion" for folder in sys.path]
    utils.append_dims = lambda x, dims: x[(..., *[None] * (dims - x.ndim))]
    package.utils = utils
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    sampling = importlib.import_module("k_diffusion.sampling")

    def denoiser(x, sigma):
        return posterior_mean(means, stds, x, torch.ones(len(x), 1), sigma[:, None])

    value, found = sampling.log_likelihood(denoiser, x, 0.002, 80.0)
    return value, found["fevals"]


def by_score_sde(means, stds, x):
    """VP of continuous time. Its bits/dim, with their offset taken off."""
    sys.path.insert(0, sys.argv[1])  # Before this folder, which has a module of the same name.
    likelihood, sde_lib = importlib.import_module("likelihood"), importlib.import_module("sde_lib")
    sde = sde_lib.VPSDE(beta_min=0.1, beta_max=20.0, N=1000)

    class Noise(torch.nn.Module):
        def forward(self, x, labels):
            mean, sigma = sde.marginal_prob(torch.ones(len(x), 1, 1, 1), labels / 999)
            mean = mean.reshape(-1, 1)
            flat = x.reshape(len(x), -1)
            denoised = posterior_mean(means, stds, flat, mean, sigma[:, None])
            return ((flat - mean * denoised) / sigma[:, None]).reshape(x.shape)

    function = likelihood.get_likelihood_fn(sde, inverse_scaler=lambda x: 7.0)
    bits, _, evaluations = function(Noise(), x[..., None, None])
    return -bits * x.shape[-1] * math.log(2), evaluations


def counted(module):
    """Count the calls of a module; returns the function that tells them."""
    count = [0]
    module.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return lambda: count[0]


def row(name, library, value, truth, evaluations):
    errors = np.asarray(value, np.float64) - truth
    sizes = f"{np.mean(errors):+.1e} | {np.sqrt(np.mean(errors**2)):.1e} | {np.abs(errors).max():.1e}"
    print(f"| {name} | {library} | {sizes} | {evaluations:.0f} |", flush=True)


def main():
    print(f"jax {jax.__version__}, torch {torch.__version__}\n")
    print("| model | library | mean error | rms | largest | evaluations |\n|---|---|---|---|---|---|")
    for name, (means, stds) in MODELS.items():
        model = sgm.model.GaussianMixture(means, stds, jnp.full(len(stds), 1 / len(stds)))
        x = model.sample(jr.key(0), EXAMPLES)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda part: jnp.asarray(np.asarray(part), jnp.float64), model)
            truth = np.asarray(jax.vmap(wide.log_prob)(jnp.asarray(np.asarray(x), jnp.float64)))
        for label, sde, options in (
            ("sgm, VP", sgm.VP(t0=1e-7), {}),
            ("sgm, Rectified", sgm.Rectified(1e-7, 1.0), {}),
            ("sgm, Rectified, accuracy=1e-3", sgm.Rectified(1e-7, 1.0), {"accuracy": 1e-3}),
        ):
            result = sgm.log_prob(sde, model, x, jr.key(1), trace=sgm.Exact(), full=True, **options)
            row(name, label, result.value, truth, float(result.nfe.mean()))
        parts = [torch.from_numpy(np.array(part)) for part in (means, stds, x)]
        torch.manual_seed(0)
        for library, function in {
            "flow_matching, exact divergence": by_flow_matching,
            "score_sde, one probe": by_score_sde,
            "k-diffusion, one probe": by_k_diffusion,
        }.items():
            value, evaluations = function(*parts)
            row(name, library, value.detach().numpy(), truth, evaluations)


if __name__ == "__main__":
    main()
