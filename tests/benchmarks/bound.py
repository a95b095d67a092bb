"""How far a chain's bound is below the truth for an exact model, by its number of steps.

PYTHONPATH=tests python tests/benchmarks/bound.py
"""

import jax.numpy as jnp
import jax.random as jr
from truth import bound_gap, drawn_bound_gap, even_chain

from sgm.model import FixedLarge, FixedSmall, Gaussian

MODEL = Gaussian(jnp.asarray([0.3, -0.5]), jnp.asarray([[1.0, 0.5], [0.5, 0.6]]))


def gap(steps, variance):
    """In nats on average over the data, in closed form and by draws with their standard error."""
    chain = even_chain(steps)
    drawn, stderr = drawn_bound_gap(chain, MODEL, variance, jr.key(1), 40_000)
    return f"{bound_gap(chain, MODEL, variance):.4f} | {drawn:.4f} ± {stderr:.4f}"


if __name__ == "__main__":
    print("| N | gap with FixedSmall (nats) | by `sgm.elbo` | gap with FixedLarge | by `sgm.elbo` |")
    print("|---|---|---|---|---|")
    for steps in (20, 40, 80, 160):
        print(f"| {steps} | {gap(steps, FixedSmall())} | {gap(steps, FixedLarge())} |", flush=True)
