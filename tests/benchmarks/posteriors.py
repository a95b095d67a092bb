"""How far each method of `sgm.sample_posterior` is from posteriors that are known, as tables in Markdown.

    python tests/benchmarks/posteriors.py [--rows field mixture signal] [--methods MMPS ...]

Columns: the error of the draws' mean in posterior standard deviations, root mean square over entries and observations,
less that of so many draws; the ratio of their standard deviations to the posterior's; the sliced Wasserstein distance
to exact draws, and its ratio to that of as many other exact draws; the share of the entries of exact draws, of which
the truth is one, within the central 95% of the draws; the largest error of a mode's weight; the error of the
log-evidence; evaluations of the model and products with its Jacobian for a draw; seconds for all draws of the row, with
compilation where it is the first of its kind.
"""

import argparse
import collections
import dataclasses
import time

import jax
import jax.random as jr
import numpy as np
from posterior_problems import LENGTH, fields, levy, mixtures, signals

import sgm
from sgm.evaluation.sliced_wasserstein import sliced_wasserstein
from sgm.posterior import DAPS, DPS, MMPS, TMPD, PiGDM, SplitGibbs, TwistedSMC

SDE, DRAWS, TRAINING = sgm.VP(), 128, 3000
SHOWN = ("mean", "std", "SW / floor", "coverage")
METHODS = {
    "DPS": DPS(),
    "PiGDM": PiGDM(),
    "TMPD": TMPD(),
    "MMPS": MMPS(iterations=16),
    "DAPS": DAPS(),
    "SplitGibbs": SplitGibbs(),
    "TwistedSMC": TwistedSMC(),
}


def cost(method, problem):
    """Evaluations of the model and products with its Jacobian, for each draw."""
    m = int(np.prod(problem.evidence.y.shape[1:]))
    if isinstance(method, TwistedSMC):
        products = 1 + (m if m <= method.most_products else 0)
        # Runs of half the particles and half the steps tell the error of log p(y).
        return 5 * method.runs * method.particles * (method.steps + 1) * (1 + products) // (4 * DRAWS)
    if isinstance(method, DAPS):
        return method.steps * (method.flow.steps + 1)
    if isinstance(method, SplitGibbs):
        return method.sweeps * (method.reverse.steps + 1)
    return 200 * (2 + {"MMPS": min(16, m), "TMPD": 1}.get(type(method).__name__, 0))


def measured(method, problem):
    """The cells of a row."""
    count = len(problem.reference)
    if isinstance(method, TwistedSMC):  # whose particles are as many evaluations as a hundred draws of another
        count = min(count, 1 if problem.modes is None else 2)
    evidence = dataclasses.replace(problem.evidence, y=problem.evidence.y[:count])
    began = time.perf_counter()
    drawn = sgm.sample_posterior(SDE, problem.model, evidence, jr.key(0), DRAWS, method=method, full=True)
    x = np.asarray(drawn.x, np.float64)
    seconds = time.perf_counter() - began
    cells = compared(problem, x) | {"log p(y)": "", "cost": str(cost(method, problem)), "seconds": f"{seconds:.1f}"}
    if drawn.log_evidence is not None and problem.log_evidence is not None:
        error = np.asarray(drawn.log_evidence) - problem.log_evidence[:count]
        known = np.isfinite(drawn.stderr)
        told = f"{np.sqrt(np.mean(np.square(np.asarray(drawn.stderr)[known]))):.2f}" if known.all() else "not known"
        cells["log p(y)"] = f"{np.sqrt(np.mean(error**2)):.2f} ({told})"
    return cells


def compared(problem, x):
    """The cells of draws for the first observations of a problem, of shape (observations, draws, ...)."""
    count, draws = x.shape[:2]
    x = x.reshape(count, draws, -1)
    mean, std, exact = problem.mean[:count], problem.std[:count], problem.reference[:count]
    own = x.std(axis=1, ddof=1)
    square = np.mean(((x.mean(axis=1) - mean) / std) ** 2 - (own / std) ** 2 / draws)
    low, high = np.quantile(x, (0.025, 0.975), axis=1, keepdims=True, method="weibull")  # of exact coverage
    distances = [
        [sliced_wasserstein(part, exact[place, :draws], jr.key(place)) for place, part in enumerate(parts)]
        for parts in (x, exact[:, draws : 2 * draws])
    ]
    cells = {
        "mean": f"{np.sqrt(max(square, 0)):.2f}",
        "std": f"{np.sqrt(np.mean((own / std) ** 2)):.2f}",
        "SW": f"{np.mean(distances[0]):.3g}",
        "SW / floor": f"{np.mean(distances[0]) / np.mean(distances[1]):.2f}",
        "coverage": f"{100 * np.mean((low <= exact) & (exact <= high)):.0f}%",
        "mode weights": "",
    }
    if problem.modes is not None:
        nearest = np.argmin(((x[:, :, None, :2] - problem.modes[:, :2]) ** 2).sum(axis=-1), axis=-1)
        found = np.stack([np.bincount(each, minlength=len(problem.modes)) / draws for each in nearest])
        cells["mode weights"] = f"{np.abs(found - problem.weights[:count]).max():.2f}"
    return cells


def signal_model():
    """A network trained on signals, for about a minute."""
    data = sgm.data.Arrays(signals(np.random.default_rng(0), 50_000).astype(np.float32), held_out=0.02)
    network = sgm.nn.MLP((LENGTH,), 256, 3, key=jr.key(0))
    model = sgm.ScoreModel(network, sgm.model.Karras(), data=data)
    optimiser = sgm.training.Adam(2e-3)
    return sgm.train(SDE, model, data, jr.key(1), steps=TRAINING, batch_size=256, optimiser=optimiser)[1]


def problems(rows):
    if "field" in rows:
        yield from fields(8, 6, DRAWS)
        yield from fields(16, 2, DRAWS)
    if "mixture" in rows:
        for dim, observations in ((8, 8), (80, 4), (800, 1)):
            yield from mixtures(dim, observations, DRAWS)
    if "signal" in rows:
        yield from levy(2, DRAWS, signal_model())


def table(family, lines):
    """A row for each problem and a column for each method, in Markdown; below them what the methods cost."""
    names = list(dict.fromkeys(line["method"] for line in lines))
    shown = ("SW", "SW / floor", "mode weights") if any(line["mode weights"] for line in lines) else SHOWN
    text = [f"\n### {family}\n\n{', '.join(shown)}\n", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for row in dict.fromkeys(line["row"] for line in lines):
        cells = {line["method"]: ", ".join(line[name] for name in shown) for line in lines if line["row"] == row}
        text.append(f"| {row} | {' | '.join(cells.get(name, '') for name in names)} |")
    seconds = {name: [float(line["seconds"]) for line in lines if line["method"] == name] for name in names}
    text.append(f"| seconds, median | {' | '.join(f'{np.median(seconds[name]):.1f}' for name in names)} |")
    costs = {name: sorted({int(line["cost"]) for line in lines if line["method"] == name}) for name in names}
    ranges = [" to ".join(dict.fromkeys(str(each) for each in (costs[name][0], costs[name][-1]))) for name in names]
    text.append(f"| evaluations a draw | {' | '.join(ranges)} |")
    evidence = [f"{line['row']}: {line['log p(y)']}" for line in lines if line["log p(y)"]]
    if evidence:
        text.append("\nErrors of log p(y), in nats, and what TwistedSMC says of them: " + "; ".join(evidence) + ".")
    return "\n".join(text)


def run(rows, names, measure):
    """Measure methods by their names on rows, and print the tables."""
    began, tables = time.perf_counter(), collections.defaultdict(list)
    for problem in problems(rows):
        if problem.family not in tables:
            jax.clear_caches()  # a process may hold only so many compiled programs
        for name in names:
            cells = measure(name, problem)
            tables[problem.family].append({"row": problem.name, "method": name} | cells)
            print(problem.family, *tables[problem.family][-1].values(), sep=" | ", flush=True)
    for family, lines in tables.items():
        print(table(family, lines))
    print(f"\n{(time.perf_counter() - began) / 60:.0f} minutes")


def parse(methods):
    """The rows and methods that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="+", default=["field", "mixture", "signal"])
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=list(methods))
    arguments = parser.parse_args()
    return arguments.rows, arguments.methods


if __name__ == "__main__":
    run(*parse(METHODS), lambda name, problem: measured(METHODS[name], problem))
