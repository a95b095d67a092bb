"""A person's own arrays as a data set."""

import dataclasses
import functools
import numbers
from typing import Any

import jax
import numpy as np

from sgm.data.stored import AbstractStored, Parts


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays(AbstractStored):
    """Examples in arrays in memory, NumPy's or JAX's, in their own units.

    Floats are numbers. Unsigned integers, uint8 and uint16, are grey levels. An array (examples,) of numbers makes
    examples of shape (1,). Images have a channel axis: pass x[..., None] of grey ones.

    Arguments:
        x: Examples along the first axis, of any shape.
        params: Vectors of parameters that are conditions, (examples, params) or (examples,).
        label: Numbers of classes that are conditions, (examples,), from 0.
        image: Images that are conditions, (examples, height, width, channels); signals or volumes where the
            examples are such.
        held_out: Share of the examples that is held out as the split "test", or an array of booleans, true for those
            that are.
        seed: Seed of the choice of held-out examples.
        grey_levels: Number of grey levels of unsigned integers: 256 for uint8 and 65536 for uint16 by default.
        classes: Number of classes: by default one more than the largest label.
        missing: Whether entries of x may be missing, which are nan: for a `Transformer`, which learns from the others.

    Raises:
        TypeError: for anything but arrays, a share of another type, and a seed or a number of grey levels that is not
            whole.
        ValueError: for arrays that do not belong together, settings out of range, and examples no model can be trained
            on: entries that are not finite, constant columns, integers that are not known to be grey levels, columns
            that look like categories. Up to 100,000 training examples are looked at now, the others when they come in a
            batch.

    Example:
        >>> data = Arrays(np.random.default_rng(0).normal(3, 0.4, (200, 32, 32, 1)))
        >>> data.size("train"), data.size("test"), data.shape
        (180, 20, (32, 32, 1))
    """

    x: Any
    params: Any = None
    label: Any = None
    image: Any = None
    _: dataclasses.KW_ONLY
    held_out: Any = 0.1
    seed: int = 0
    grey_levels: int | None = None
    classes: int | None = None
    missing: bool = False

    def __post_init__(self):
        for name in ("x", "params", "label", "image", "held_out"):
            value = getattr(self, name)
            if name == "x" or not (value is None or isinstance(value, numbers.Real)):
                _check_array(name, value)
        self.check()

    @functools.cached_property
    def parts(self) -> Parts:
        given = (self.params, self.label, self.image)
        params, label, image = (None if value is None else np.asarray(value) for value in given)
        mask = None if isinstance(self.held_out, numbers.Real) else np.asarray(self.held_out)
        if mask is not None and (mask.dtype != bool or mask.ndim != 1):
            raise ValueError(
                f"Arrays: held_out has dtype {mask.dtype} and shape {mask.shape}; pass a share, or an array of "
                "booleans, true for each example that is held out."
            )
        return Parts(np.asarray(self.x), params, label, image, held_out=mask)


def _check_array(name: str, value: Any) -> None:
    if isinstance(value, np.ndarray | jax.Array):
        return
    if hasattr(value, "columns"):
        remedy = f"pass sgm.data.Table({name}) for its columns" if name == "x" else f"pass {name}.to_numpy()"
    else:
        remedy = f"pass np.asarray({name})"
    raise TypeError(f"Arrays: {name} is a {type(value).__name__}, not an array; {remedy}.")
