"""The classifier of two-sample tests."""

from typing import Any

import numpy as np
from jaxtyping import Float


def mlp_classifier(inputs: int, seed: int, **options: Any) -> Any:
    """Build scikit-learn's perceptron with two hidden layers, each ten times as wide as its input.

    Arguments:
        inputs: Number of inputs.
        seed: Seed of its weights and of the order of its batches.
        options: Other arguments of `MLPClassifier`.

    Returns:
        The classifier, not trained.
    """
    from sklearn.neural_network import MLPClassifier  # here, because it takes a second to import

    hidden = (10 * inputs, 10 * inputs)
    return MLPClassifier(hidden, activation="relu", solver="adam", random_state=seed, **options)


def to_table(call: str, name: str, values: Any) -> np.ndarray:
    """The values as an array of NumPy. Raise ValueError unless it has rows and columns."""
    table = np.asarray(values)
    if table.ndim != 2:
        raise ValueError(
            f"{call}: {name} has shape {table.shape}; pass rows and columns, of one column as "
            f"np.reshape({name}, (-1, 1))."
        )
    return table


def z_scored(x: Float[np.ndarray, "n columns"], of: Float[np.ndarray, "m columns"]) -> Float[np.ndarray, "n columns"]:
    """`x` less the mean of each column of `of`, over its standard deviation; a constant column is only shifted."""
    mean, std = of.mean(axis=0, dtype=np.float64), of.std(axis=0, ddof=1, dtype=np.float64)
    return (x - mean) / np.where(std > 0, std, 1)
