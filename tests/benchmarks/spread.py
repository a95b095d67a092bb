"""The spread of samples over the truth, for every method with its default options on Gaussians of several widths.

python tests/benchmarks/spread.py
"""

import sys
from pathlib import Path

import diffrax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm

sys.path.append(str(Path(__file__).parents[1]))
from widths import Independent

METHODS = {
    "EulerMaruyama()": sgm.EulerMaruyama(),
    "ReverseSDE()": sgm.ReverseSDE(),
    "ProbabilityFlow()": sgm.ProbabilityFlow(),
    "Ancestral()": sgm.Ancestral(),
    "DDIM()": sgm.DDIM(),
    "DPMSolverPP()": sgm.DPMSolverPP(),
    "SDEDPMSolverPP()": sgm.SDEDPMSolverPP(),
    "SingleDPMSolverPP()": sgm.SingleDPMSolverPP(),
    "EDMHeun()": sgm.EDMHeun(),
    "PredictorCorrector()": sgm.PredictorCorrector(),
}
WIDTHS, ADAPTIVE_DRAWS, DRAWS, ENTRIES = (1e-3, 1e-2, 1.0, 10.0), 32_000, 64, 1024


def spread(sde, method, std):
    """That of x at t0 over the truth. Entries are independent; adaptive methods choose the steps of each."""
    adaptive = not isinstance(method.stepping, sgm.solve.FixedSteps)
    n, entries = (ADAPTIVE_DRAWS, 1) if adaptive else (DRAWS, ENTRIES)
    how = {"method": method, "saveat": diffrax.SaveAt(t0=True)}
    cond = sgm.Condition(params=jnp.full(entries, std))
    x = np.asarray(sgm.sample(sde, Independent((entries,)), jr.key(0), n, cond=cond, **how), np.float64)
    return np.std(x) / np.hypot(float(sde.alpha(sde.t0)) * std, float(sde.sigma(sde.t0))), 1 / np.sqrt(2 * x.size)


if __name__ == "__main__":
    print("| method | process | " + " | ".join(f"std {std:g}" for std in WIDTHS) + " | standard error |")
    print("|---|---|" + "---|" * (len(WIDTHS) + 1))
    for name, method in METHODS.items():
        for process, sde in {"VP": sgm.VP(), "VE": sgm.VE()}.items():
            ratios, errors = zip(*(spread(sde, method, std) for std in WIDTHS), strict=True)
            print(f"| `{name}` | {process} | {' | '.join(f'{r:.3f}' for r in ratios)} | {errors[0]:.3f} |", flush=True)
