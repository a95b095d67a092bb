import dataclasses

import jax.random as jr
import pytest
from posteriors import HOW, MODELS, Noisy

import sgm


@pytest.fixture(scope="session")
def reports():
    """The report of a metric on a model, each made once."""
    made = {}

    def report(name, metric, shape=(2,), n=400):
        key = name, repr(metric), shape, n
        if key not in made:
            model = dataclasses.replace(MODELS[name], shape=shape)
            made[key] = sgm.evaluate(sgm.VP(), model, Noisy(shape), [metric], jr.key(0), n=n, **HOW)
        return made[key]

    return report
