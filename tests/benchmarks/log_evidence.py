"""How far the error that TwistedSMC tells of log p(y) is from its true one, on ten rows of posteriors.py.

    python tests/benchmarks/log_evidence.py

A line for each row: the errors of six observations, in nats, each with what is told of it. Then how many errors are
within three times what is told, of those that are told.
"""

import dataclasses

import jax.random as jr
import numpy as np
from posterior_problems import fields, mixtures
from posteriors import DRAWS, SDE

import sgm
from sgm.posterior import TwistedSMC

OBSERVATIONS = 6
FIELDS = "4x smaller, noise 0.01", "10 projections, noise 0.01", "10 projections, noise 0.1", "half, noise 1.0"


def main():
    chosen = {problem.name: problem for problem in fields(8, OBSERVATIONS, DRAWS)}
    ratios = []
    for problem in (*mixtures(8, 8, DRAWS), *mixtures(80, 8, DRAWS), *(chosen[name] for name in FIELDS)):
        evidence = dataclasses.replace(problem.evidence, y=problem.evidence.y[:OBSERVATIONS])
        how = {"method": TwistedSMC(), "full": True}
        drawn = sgm.sample_posterior(SDE, problem.model, evidence, jr.key(7), DRAWS, **how)
        errors, told = np.asarray(drawn.log_evidence) - problem.log_evidence[:OBSERVATIONS], np.asarray(drawn.stderr)
        ratios.extend(np.abs(errors) / told)
        cells = (f"{error:.3f} ({stderr:.3f})" for error, stderr in zip(errors, told, strict=True))
        print(f"{problem.name}: {', '.join(cells)}", flush=True)
    known = np.asarray(ratios)[np.asarray(ratios) > 0]  # an error that is not told is inf
    print(f"{np.sum(known <= 3)} of {len(known)} errors are within three times what is told; {len(ratios)} in all")


if __name__ == "__main__":
    main()
