"""What metrics of posteriors share: draws, parameters and conditions as rows of numbers.

A model of a posterior is a conditional model whose examples are parameters theta, and whose conditions are what was
observed.
"""

from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from sgm.evaluation.metric import Context, samples_like

Fields = dict[str, np.ndarray]


def posterior_draws(
    context: Context, n: int, fields: Fields, draws: int, key: PRNGKeyArray
) -> Float[np.ndarray, "n draws parameters"]:
    """Draw theta given each of `n` conditions, all in one solve, in the data's units.

    Arguments:
        context: What is evaluated.
        n: Number of conditions.
        fields: Conditions.
        draws: Number of draws of each.
        key: Key of the draws.

    Returns:
        The draws, with their entries in row-major order.
    """
    repeated = {name: np.repeat(values, draws, axis=0) for name, values in fields.items()}
    return samples_like(context, n * draws, repeated, key).reshape(n, draws, -1)


def parameters(context: Context, x: Any, key: PRNGKeyArray) -> Float[np.ndarray, "n parameters"]:
    """The parameters of a batch of records, in the data's units.

    Arguments:
        context: What is evaluated.
        x: Examples as the data set stores them.
        key: Key of the dequantisation of grey levels.

    Returns:
        The parameters, with their entries in row-major order.
    """
    return np.asarray(context.real(x, key), np.float32).reshape(len(x), -1)


def conditions(context: Context, n: int, fields: Fields) -> Float[np.ndarray, "n condition"]:
    """Conditions as rows of numbers: parameters, a column for each class, and the pixels of an image.

    Arguments:
        context: What is evaluated.
        n: Number of conditions.
        fields: Conditions.

    Returns:
        The rows; of length 0 where there is no condition.
    """
    parts = [np.zeros((n, 0), np.float32)]
    for name, values in fields.items():
        if name == "label":
            values = values[:, None] == np.arange(context.data.conditioning.classes or 0)
        parts.append(np.asarray(values, np.float32).reshape(n, -1))
    return np.concatenate(parts, axis=1)


def generator(key: PRNGKeyArray) -> np.random.Generator:
    """The generator of NumPy that a key seeds.

    Arguments:
        key: Key.

    Returns:
        The generator.
    """
    return np.random.default_rng(np.asarray(jr.bits(key, (4,))))
