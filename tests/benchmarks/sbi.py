"""How well a conditional diffusion model p(theta | x) draws from posteriors of simulators, by C2ST, in Markdown.

    PYTHONPATH=FOLDER python tests/benchmarks/sbi.py [--tasks two_moons slcp] [--simulations 1000 30000]

with FOLDER as in tests/benchmarks/sbi_tasks.py. C2ST is the accuracy of a classifier of 10,000 draws and 10,000
reference draws, from 0.5, which is best, to 1: here the mean and standard deviation over observations. Every task has
the same recipe. Seconds are those of the processor's cores, with compilation. Below are published numbers.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from sbi_tasks import TASKS

import sgm
from sgm.evaluation import c2st

SDE = sgm.VP()
# Lower levels than those of images: a posterior is narrower than its prior, by a factor of 60 in two tasks.
LEVELS = {"mean": -1.8, "std": 1.8}
LOSS = sgm.Loss(sgm.training.KarrasWeighting(**LEVELS), sgm.training.NormalLogSNR(**LEVELS))
METHODS = {
    # 19 steps and E[x0 | x] at the end. From sigma/alpha = 33 to 0.005, outside of which no posterior here takes shape.
    "20 evaluations": (sgm.VP(t0=2.5e-4, t1=0.83), sgm.DPMSolverPP(19, order=3)),
    "accurate": (SDE, sgm.ProbabilityFlow()),
}
BATCH, EPOCHS, MOST_STEPS = 256, 200, 24_000
DRAWS, ROUND = 10_000, 2_500
PUBLISHED = {  # At 30,000 simulations, in the order of TASKS.
    "GenSBI": (0.51, 0.50, 0.50, 0.57, 0.58),
    "Simformer": (0.51, 0.50, 0.51, 0.57, 0.59),
    "NPE": (0.57, 0.55, 0.56, 0.84, 0.65),
}


class Best:
    """A callback of training that keeps the averaged model of the lowest loss on held-out simulations."""

    def __init__(self, data, every, repeats=16):
        theta, fields = data.rows("test", 0, data.size("test"))
        theta, x = (np.repeat(rows, repeats, axis=0) for rows in (theta, fields["params"]))
        self.loss = eqx.filter_jit(lambda model: LOSS(SDE, model, theta, jr.key(0), cond=sgm.Condition(params=x)))
        self.every, self.lowest, self.model, self.step = every, np.inf, None, 0

    def __call__(self, step, metrics, state):
        if step % self.every == 0 and (loss := float(self.loss(state.average))) < self.lowest:
            self.lowest, self.step = loss, step
            self.model = jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, state.average)


def untrained(data, key):
    """A model of p(theta | x)."""
    network = sgm.nn.MLP(data.shape, 128, 4, frequencies=3, conditioning=data.conditioning, key=key)
    return sgm.ScoreModel(network, sgm.model.Karras(), data=data)


def trained(data, key, most_steps):
    """A model trained on simulations, with the cells that tell how."""
    began, (key_network, key_train) = time.process_time(), jr.split(key)
    steps = min(data.size("train") * EPOCHS // BATCH, most_steps)
    best = Best(data, every=max(1, steps // 20))
    optimiser = sgm.training.Muon(3e-3, warmup=200, weight_decay=0.2)
    how = dict(batch_size=BATCH, loss=LOSS, optimiser=optimiser, callbacks=[best], log_every=best.every, progress=False)
    sgm.train(SDE, untrained(data, key_network), data, key_train, steps=steps, **how)
    return best.model, {"training": f"{time.process_time() - began:.0f} s", "step": f"{best.step} of {steps}"}


def kept(place, data, key, most_steps):
    """`trained`, read from a file where it is there, else written to it."""
    told = place.with_suffix(".json")
    if place.exists():
        return eqx.tree_deserialise_leaves(place, untrained(data, key)), json.loads(told.read_text())
    model, cells = trained(data, key, most_steps)
    place.parent.mkdir(parents=True, exist_ok=True)
    eqx.tree_serialise_leaves(place, model)
    told.write_text(json.dumps(cells))
    return model, cells


def draws(sde, model, x, key, method, bound):
    """As many draws of the posterior as C2ST takes, within the prior's support."""

    def support(theta):
        return jnp.all(jnp.abs(theta) <= bound)

    how = {"cond": sgm.Condition(params=x), "method": method, "round_size": ROUND}
    return np.asarray(sgm.posterior.sample_within(sde, model, key, DRAWS, support, **how)[0])


def measured(task, simulations, observations, accurate, most_steps, models):
    """The cells of a row."""
    key_data, key_train, key_draw = jr.split(jr.key(0), 3)
    theta, x = task.simulations(key_data, simulations)
    data = sgm.data.Arrays(theta, params=x, held_out=0.05)
    if models is None:
        model, cells = trained(data, key_train, most_steps)
    else:
        model, cells = kept(models / f"{task.name}_{simulations}_{most_steps}.eqx", data, key_train, most_steps)
    scores, seconds = {name: [] for name in METHODS}, dict.fromkeys(METHODS, 0.0)
    numbers = {"20 evaluations": observations, "accurate": accurate}
    for number in range(1, observations + 1):
        observation, found = task.observation(number), []
        for name, (sde, method) in METHODS.items():
            if number > numbers[name]:
                continue
            began = time.process_time()
            drawn = draws(sde, model, observation.x, jr.fold_in(key_draw, number), method, task.bound)
            seconds[name] += (time.process_time() - began) / numbers[name]
            scores[name].append(c2st(observation.reference, drawn)[0])
            found.append(f"{name} {scores[name][-1]:.3f}")
        print(f"{task.name}, {simulations} simulations, observation {number}: {', '.join(found)}", flush=True)
    for name, of_all in scores.items():
        if of_all:
            of = f", of {len(of_all)}" if len(of_all) < observations else ""
            cells[name] = f"{np.mean(of_all):.3f} ± {np.std(of_all):.3f} ({seconds[name]:.1f} s{of})"
    return cells


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--simulations", nargs="+", type=int, default=[1_000, 10_000, 30_000])
    parser.add_argument("--observations", type=int, default=10, help="The first so many of ten.")
    parser.add_argument("--accurate", type=int, default=10, help="The first so many have accurate draws as well.")
    parser.add_argument("--steps", type=int, default=MOST_STEPS, help="Most steps of training.")
    parser.add_argument("--models", type=Path, help="Folder of trained models. One that is there is not trained again.")
    arguments = parser.parse_args()
    lines = []
    for name in arguments.tasks:
        for simulations in arguments.simulations:
            numbers = arguments.observations, min(arguments.accurate, arguments.observations)
            cells = measured(TASKS[name], simulations, *numbers, arguments.steps, arguments.models)
            place = list(TASKS).index(name)
            cells |= {
                method: f"{published[place]:.2f}" for method, published in PUBLISHED.items() if simulations == 30_000
            }
            lines.append({"task": name, "simulations": str(simulations)} | cells)
            print(" | ".join(lines[-1].values()), flush=True)
    columns = list(dict.fromkeys(column for line in lines for column in line))
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for line in lines:
        print(f"| {' | '.join(line.get(column, '') for column in columns)} |")
