"""How far a chain's bound is below the truth for an exact model, by its number of steps.

python tests/benchmarks/bound.py
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm.model import FixedLarge, FixedSmall, Gaussian
from sgm.sde import DiscreteChain
from sgm.solve import LogSNRGrid

MODEL = Gaussian(jnp.asarray([0.3, -0.5]), jnp.asarray([[1.0, 0.5], [0.5, 0.6]]))


def gap(steps, variance):
    """Its mean over 4000 points in nats with its standard error, for steps of one length from sigma/alpha = 0.01."""
    sde = sgm.VP(t0=float(sgm.VP().time(jnp.arctan(1e-2))))
    chain = DiscreteChain.at_times(sde, np.asarray(LogSNRGrid().times(sde, steps - 1))[::-1])
    x = MODEL.sample(jr.key(0), 4000)
    gaps = jax.vmap(MODEL.log_prob)(x) - sgm.elbo(chain, MODEL, x, jr.key(1), variance=variance, draws=4)
    return f"{float(gaps.mean()):.3f} ± {float(gaps.std()) / len(gaps) ** 0.5:.3f}"


if __name__ == "__main__":
    print("| N | gap with FixedSmall (nats) | gap with FixedLarge |\n|---|---|---|")
    for steps in (20, 40, 80, 160):
        print(f"| {steps} | {gap(steps, FixedSmall())} | {gap(steps, FixedLarge())} |", flush=True)
