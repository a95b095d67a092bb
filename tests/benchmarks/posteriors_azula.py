"""The rows of posteriors.py by the PyTorch library azula, for the methods that both have.

    pip install "sgm[azula]"
    python tests/benchmarks/posteriors_azula.py [--rows field mixture signal] [--methods MMPS ...]

The models are the same, called through JAX; so are the observations, the numbers of draws and of steps. MMPS has 16
iterations in both, here of GMRES, its default. What azula leaves to its user is set so:

- DPS's step is of the norm over its whole batch: zeta is the root of the batch's size, which makes it that of one.
- PiGDM, which knows no noise of y, is given the pseudo-inverse of the operator, and the ancestral noise (eta = 1).
- TDS is given log N(y; A x0, std^2 I + r^2 A A^T), with r^2 the variance of white data given noisy ones.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import DPSSampler, MMPSDenoiser, PGDMSampler, TDSSampler, TMPDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VPSchedule
from azula.sample import DDPMSampler
from posterior_problems import matrix_of
from posteriors import DRAWS, compared, parse, run

from sgm.model.base import estimate_of

STEPS, ITERATIONS, PARTICLES, FEWER = 200, 16, 512, 1


class Jax(Denoiser):
    """The denoiser of a model of sgm, of flat examples in standardised coordinates."""

    def __init__(self, model):
        super().__init__()
        self.schedule = VPSchedule()

        def denoised(x, alpha, sigma):
            level, size = jnp.log(sigma / alpha), jnp.hypot(sigma, alpha)
            u = (x / size).reshape(len(x), *model.shape)
            return jax.vmap(lambda u: estimate_of(model, level, u).denoised)(u).reshape(x.shape)

        self.denoised = jax.jit(denoised)
        self.product = jax.jit(lambda x, *scales, v: jax.vjp(lambda x: denoised(x, *scales), x)[1](v)[0])

    def forward(self, x_t, t, **kwargs):
        alpha, sigma = (float(scale) for scale in self.schedule(t))
        return DiracPosterior(_Call.apply(x_t, alpha, sigma, self))


class _Call(torch.autograd.Function):
    """A call of a function of JAX, and its products with the Jacobian."""

    @staticmethod
    def forward(ctx, x, alpha, sigma, denoiser):
        ctx.save_for_backward(x)
        ctx.scales, ctx.denoiser = (alpha, sigma), denoiser
        return torch.tensor(np.asarray(denoiser.denoised(x.numpy(), alpha, sigma)))

    @staticmethod
    def backward(ctx, v):
        (x,) = ctx.saved_tensors
        product = ctx.denoiser.product(x.detach().numpy(), *ctx.scales, v=v.numpy())
        return torch.tensor(np.asarray(product)), None, None, None


def sampler_of(name, denoiser, matrix, y, std):
    """A sampler of x given y = matrix x + std noise, of rows, with azula's defaults but for the above."""

    def operator(x):
        return x @ matrix.T

    inverse = torch.linalg.pinv(matrix)
    options = {"steps": STEPS, "silent": True}
    match name:
        case "DPS":
            return DPSSampler(denoiser, y, operator, zeta=math.sqrt(len(y)), **options)
        case "PiGDM":
            return PGDMSampler(denoiser, y, operator, lambda y: y @ inverse.T, eta=1.0, **options)
        case "TMPD":
            return DDPMSampler(TMPDenoiser(denoiser, y, operator, std**2), **options)
        case "MMPS":
            noise = IsotropicCovariance(torch.tensor(std**2))
            return DDPMSampler(MMPSDenoiser(denoiser, y, operator, noise, "gmres", ITERATIONS), **options)
        case "TDS":
            square = matrix @ matrix.T

            def twist(x0, level):
                covariance = std**2 * torch.eye(len(square)) + level**2 / (1 + level**2) * square
                return torch.distributions.MultivariateNormal(operator(x0), covariance).log_prob(y)[:, None]

            return TDSSampler(denoiser, twist, **options)


def measured(name, problem):
    """The cells of a row. Draws are found in standardised coordinates."""
    torch.manual_seed(0)
    units, shape = problem.model.units, problem.model.shape
    size = math.prod(shape)
    matrix = matrix_of(problem.evidence.operator, shape)
    scale, shift = (np.broadcast_to(part.value, shape).reshape(-1) for part in (units.std, units.mean))
    count, draws = (FEWER, PARTICLES) if name == "TDS" else (len(problem.reference), DRAWS)
    count = min(count, len(problem.reference))
    y = np.asarray(problem.evidence.y, np.float64)[:count].reshape(count, -1) - matrix @ shift
    began = time.perf_counter()
    denoiser = Jax(problem.model)

    def drawn(y):
        rows = torch.tensor(np.repeat(y, draws, axis=0), dtype=torch.float32)
        operator = torch.tensor(matrix * scale, dtype=torch.float32)
        sampler = sampler_of(name, denoiser, operator, rows, float(problem.evidence.std))
        return sampler(sampler.init((len(rows), size))).numpy().reshape(len(y), draws, size)

    # The particles of one observation are together, and the observations of other methods.
    x = np.concatenate([drawn(y[place, None]) for place in range(count)]) if name == "TDS" else drawn(y)
    seconds = time.perf_counter() - began
    products = {"MMPS": ITERATIONS, "TMPD": 1}.get(name, 0)
    evaluations = STEPS * (2 + products) * (PARTICLES // DRAWS if name == "TDS" else 1)
    cells = compared(problem, (x * scale + shift)[:, :DRAWS].astype(np.float64))
    return cells | {"log p(y)": "", "cost": str(evaluations), "seconds": f"{seconds:.1f}"}


if __name__ == "__main__":
    run(*parse(("DPS", "PiGDM", "TMPD", "MMPS", "TDS")), measured)
