"""How well `sgm.model.Observations` draws from the posterior of n independent observations, by C2ST, in Markdown.

    PYTHONPATH=FOLDER python tests/benchmarks/composed.py [--models FOLDER]

with FOLDER as in tests/benchmarks/sbi_tasks.py. The task is Gaussian linear: ten parameters theta ~ N(0, 0.1 I), each
observation x ~ N(theta, 0.1 I), so that the posterior of n of them is N(n mean(x) / (n + 1), 0.1 / (n + 1) I). The
composition is exact for a model that is; so it is shown for the exact posterior of one observation, and for a model
trained on 30,000 simulations by the recipe of sbi.py. 1,000 draws are told from 1,000 exact ones.
"""

import argparse
import time
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from sbi import MOST_STEPS, kept, trained
from sbi_tasks import TASKS

import sgm
from sgm.evaluation import c2st
from sgm.model import AbstractModel, Gaussian, Observations

DRAWS, VARIANCE, SIZE = 1_000, 0.1, 10


class ExactPosterior(AbstractModel):
    """The posterior of one observation, in closed form."""

    @property
    def shape(self):
        return (SIZE,)

    def predict(self, level, u, cond=None, key=None):
        return Gaussian(cond.params / 2, VARIANCE / 2 * jnp.eye(SIZE)).predict(level, u)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, help="Folder of trained models. One that is there is not trained again.")
    parser.add_argument("--steps", type=int, default=20, help="Steps of DPMSolverPP.")
    arguments = parser.parse_args()
    key_data, key_train, key_draw = jr.split(jr.key(0), 3)
    theta, x = TASKS["gaussian_linear"].simulations(key_data, 30_000)
    data = sgm.data.Arrays(theta, params=x, held_out=0.05)
    if arguments.models is None:
        learnt, _ = trained(data, key_train, MOST_STEPS)
    else:
        learnt, _ = kept(arguments.models / f"gaussian_linear_30000_{MOST_STEPS}.eqx", data, key_train, MOST_STEPS)
    prior = Gaussian(jnp.zeros(SIZE), VARIANCE * jnp.eye(SIZE))
    print("| observations | C2ST, exact model | C2ST, trained model | mean off, stds | std, over the exact | seconds |")
    print("|---|---|---|---|---|---|")
    for n in (1, 8, 64):
        key_theta, key_x, key_exact, key = jr.split(jr.fold_in(key_draw, n), 4)
        truth = VARIANCE**0.5 * jr.normal(key_theta, (SIZE,))
        observed = truth + VARIANCE**0.5 * jr.normal(key_x, (n, SIZE))
        mean, std = np.asarray(n * observed.mean(0) / (n + 1)), (VARIANCE / (n + 1)) ** 0.5
        exact = mean + std * np.asarray(jr.normal(key_exact, (DRAWS, SIZE)))
        cells = []
        for model in (ExactPosterior(), learnt):
            composed = Observations(model, sgm.Condition(params=observed), prior.in_units(model.units))
            began = time.process_time()
            drawn = np.asarray(sgm.sample(sgm.VP(), composed, key, DRAWS, method=sgm.DPMSolverPP(arguments.steps)))
            seconds = time.process_time() - began
            cells.append(f"{c2st(exact, drawn)[0]:.3f}")
        off, wide = (drawn.mean(0) - mean) / std, drawn.std(0) / std
        moments = f"{np.sqrt(np.mean(off**2)):.2f}", f"{wide.mean():.2f}"
        print(f"| {n} | {' | '.join(cells)} | {' | '.join(moments)} | {seconds:.0f} |", flush=True)
