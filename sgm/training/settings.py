"""How long a model is trained, and by which optimiser."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from sgm.checks import check_at_least, check_concrete, check_count, check_positive
from sgm.nn.convolution import Convolution
from sgm.nn.stacked import Stacked


class AbstractOptimiser(eqx.Module):
    """A rule that makes an optimiser for a run of known length."""

    def unclipped(self) -> "AbstractOptimiser":
        """The same rule with no clip of gradients."""
        return self

    @abstractmethod
    def build(self, steps: int) -> optax.GradientTransformation:
        """Make the optimiser.

        Arguments:
            steps: Number of steps of the whole run.
        """


def warmup_cosine(learning_rate: float, warmup: int, steps: int) -> optax.Schedule:
    """A learning rate that rises linearly over `warmup` steps, at most half of all, then falls to zero as a cosine."""
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, min(warmup, steps // 2), steps)


class Adam(AbstractOptimiser):
    """Adam on gradients clipped to a global norm. Its rate rises linearly, then falls to zero as a cosine.

    Arguments:
        learning_rate: Largest learning rate.
        warmup: Number of steps over which the learning rate rises.
        clip: Largest global norm of a gradient.

    Raises:
        TypeError: for a warmup that is no integer.
        ValueError: for a learning rate or a clip that is not above 0, and a warmup below 0.

    Example:
        >>> training = Training(steps=5_000, optimiser=Adam(4e-3))
        >>> optimiser = Adam(4e-3).build(steps=5_000)  # a transformation of optax

    Reference: Kingma and Ba 2015 (arXiv:1412.6980, algorithm 1).
    """

    learning_rate: float = eqx.field(static=True, default=1e-3)
    warmup: int = eqx.field(static=True, default=500)
    clip: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        _check(self, "learning_rate", "clip")

    def unclipped(self):
        return replace(self, clip=math.inf)

    def build(self, steps):
        return optax.chain(
            optax.clip_by_global_norm(self.clip), optax.adam(warmup_cosine(self.learning_rate, self.warmup, steps))
        )


class AdamW(AbstractOptimiser):
    """Adam with decoupled weight decay, on gradients clipped to a global norm. Its rate is that of `Adam`.

    Arguments:
        learning_rate: Largest learning rate.
        warmup: Number of steps over which the learning rate rises.
        clip: Largest global norm of a gradient.
        weight_decay: Share of a weight that is taken off at each step, times the learning rate.

    Raises:
        TypeError: for a warmup that is no integer.
        ValueError: for a learning rate or a clip that is not above 0, and a warmup or a weight decay below 0.

    Example:
        >>> experiment = sgm.Experiment(
        ...     data=Moons(), network=partial(MLP), training=Training(optimiser=AdamW(3e-4, weight_decay=0.1))
        ... )

    Reference: Loshchilov and Hutter 2019 (arXiv:1711.05101).
    """

    learning_rate: float = eqx.field(static=True, default=1e-3)
    warmup: int = eqx.field(static=True, default=500)
    clip: float = eqx.field(static=True, default=1.0)
    weight_decay: float = eqx.field(static=True, default=1e-2)

    def __check_init__(self):
        _check(self, "learning_rate", "clip")
        _check_decay(self)

    def unclipped(self):
        return replace(self, clip=math.inf)

    def build(self, steps):
        rate = warmup_cosine(self.learning_rate, self.warmup, steps)
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adamw(rate, weight_decay=self.weight_decay))


class Muon(AbstractOptimiser):
    """Muon: steps of matrices that are as long in every direction. Adam trains all other parameters.

    A matrix W of m inputs and n outputs, whose momentum is U S V^T by singular values, goes by

        -rate (0.2 sqrt(max(m, n)) U V^T + weight_decay W)

    with U V^T by five iterations, to about 30%. The factor gives it the root mean square of a step of `Adam`, of which
    rates can be kept. Matrices are the last two axes of a parameter, and the whole kernel of a `Convolution`, whose
    inputs are those of its window. Momenta are Nesterov's. Clip and rate are those of `Adam`.

    Arguments:
        learning_rate: Largest learning rate.
        warmup: Number of steps over which the learning rate rises.
        clip: Largest global norm of a gradient.
        weight_decay: Share of a matrix that is taken off at each step, times the learning rate.

    Raises:
        TypeError: for a warmup that is no integer.
        ValueError: for a learning rate or a clip that is not above 0, and a warmup or a weight decay below 0.

    Example:
        >>> optimiser = Muon(3e-3, weight_decay=0.1)
        >>> sde, model, history = sgm.train(sde, model, data, key, steps=10, optimiser=optimiser)

    Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025
    (arXiv:2502.16982), whose factor 0.2 this is.
    """

    learning_rate: float = eqx.field(static=True, default=1e-3)
    warmup: int = eqx.field(static=True, default=500)
    clip: float = eqx.field(static=True, default=1.0)
    weight_decay: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        _check(self, "learning_rate", "clip")
        _check_decay(self)

    def unclipped(self):
        return replace(self, clip=math.inf)

    def build(self, steps):
        rate = warmup_cosine(self.learning_rate, self.warmup, steps)
        muon = optax.contrib.muon(
            rate, weight_decay=self.weight_decay, muon_weight_dimension_numbers=_matrices, consistent_rms=0.2
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), muon)


def _matrices(weights: PyTree) -> PyTree:
    """The axes of each parameter that are inputs and outputs of a matrix; None for those that Adam trains."""

    def axes(part, window, first):
        if part.ndim < first + 2:
            return None
        inputs = tuple(range(first, part.ndim - 1)) if window else (part.ndim - 2,)
        return optax.contrib.MuonDimensionNumbers(inputs, (part.ndim - 1,))

    def of_tree(tree, first):
        def of_layer(layer):
            if isinstance(layer, Stacked):  # whose first axis counts blocks
                return Stacked(of_tree(layer.each, first + 1))
            return jax.tree.map(lambda part: axes(part, isinstance(layer, Convolution), first), layer)

        return jax.tree.map(of_layer, tree, is_leaf=lambda layer: isinstance(layer, Convolution | Stacked))

    return of_tree(weights, 0)


def _check(optimiser, *positive):
    name = type(optimiser).__name__
    for option in positive:
        value = getattr(optimiser, option)
        check_concrete(name, **{option: value})
        check_positive(name, option, value)
    check_count(name, "warmup", optimiser.warmup, 0)


def _check_decay(optimiser):
    name = type(optimiser).__name__
    check_concrete(name, weight_decay=optimiser.weight_decay)
    check_at_least(name, "weight_decay", optimiser.weight_decay, 0)


@dataclass(frozen=True)
class Training:
    """How long a model is trained, and what is kept of it.

    Arguments:
        steps: Number of steps of the whole run.
        batch_size: Number of examples of a step.
        optimiser: Optimiser of the weights.
        average_decay: Decay of the exponential average of the weights.
        accumulate: Number of parts of a batch whose gradients are found one after the other, to save memory.
        log_every: Number of steps between two looks at the metrics.
        checkpoint_every: Number of steps between two checkpoints.
        keep: Number of newest checkpoints that are kept.
        keep_best: Number of checkpoints of least held-out loss that are kept besides.
        preview_every: Number of steps between two previews of samples.

    Raises:
        TypeError: for a count that is no integer.
        ValueError: for a count below 1, a keep_best below 0, and an average_decay outside [0, 1).

    Example:
        >>> training = Training(steps=11_000, batch_size=256, optimiser=Adam(4e-3))
        >>> experiment = sgm.Experiment(data=Digits(), network=partial(MLP, width=320), training=training)
    """

    steps: int = 10_000
    batch_size: int = 128
    optimiser: AbstractOptimiser = Adam()
    average_decay: float = 0.999
    accumulate: int = 1
    log_every: int = 50
    checkpoint_every: int = 500
    keep: int = 2
    keep_best: int = 0
    preview_every: int = 2000

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep", "preview_every"):
            check_count("Training", name, getattr(self, name))
        check_count("Training", "keep_best", self.keep_best, 0)
        check_average_decay("Training", self.average_decay)


def check_average_decay(call: str, average_decay: float) -> None:
    """Raise unless it is a plain number, at least 0 and below 1."""
    check_concrete(call, average_decay=average_decay)
    if not 0 <= average_decay < 1:
        raise ValueError(f"{call}: average_decay = {average_decay}; pass 0 <= average_decay < 1.")
