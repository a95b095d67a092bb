"""Tables beta_1 ... beta_N of discrete chains, x_k = sqrt(1 - beta_k) x_(k-1) + sqrt(beta_k) noise, in float64."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from sgm.checks import check_concrete, check_count, check_instance
from sgm.sde.schedules import short_table, to_table

Table = Float64[np.ndarray, " steps"]


class AbstractBetas(eqx.Module):
    """The rule that makes a chain's table of betas. Its numbers are never trained."""

    @property
    @abstractmethod
    def values(self) -> Table:
        """beta_1 ... beta_N, float64."""


class TableBetas(AbstractBetas):
    """A table that is given number by number.

    Arguments:
        table: Values of beta_1 ... beta_N, each between 0 and 1; the last may be 1.

    Example:
        >>> chain = sgm.DiscreteChain(TableBetas((0.1, 0.2, 0.5)))
        >>> round(float(chain.alpha(3.0) ** 2), 2)  # 0.9 * 0.8 * 0.5
        0.36
    """

    table: tuple[float, ...] = eqx.field(static=True, converter=to_table)

    def __pdoc__(self, **kwargs):
        return short_table("TableBetas", table=self.table)

    @property
    def values(self):
        return np.asarray(self.table, np.float64)


class LinearBetas(AbstractBetas):
    """Evenly spaced betas.

    Arguments:
        steps: Number of steps, N.
        first: Value of beta_1.
        last: Value of beta_N.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than two steps, and numbers that are traced.

    Example:
        >>> chain = sgm.DiscreteChain(LinearBetas(1000))
        >>> round(float(np.prod(1 - chain.betas.values)), 7)  # what is left of the variance of the data
        4.04e-05

    Reference: Ho et al. 2020 (DDPM, arXiv:2006.11239, section 4).
    """

    steps: int = eqx.field(static=True, default=1000)
    first: float = eqx.field(static=True, default=1e-4)
    last: float = eqx.field(static=True, default=0.02)

    def __check_init__(self):
        _check(self, "first", "last")

    @property
    def values(self):
        return np.linspace(self.first, self.last, self.steps)


class ScaledLinearBetas(AbstractBetas):
    """Betas whose square roots are evenly spaced.

    Arguments:
        steps: Number of steps, N.
        first: Value of beta_1.
        last: Value of beta_N.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than two steps, and numbers that are traced.

    Example:
        >>> chain = sgm.DiscreteChain(ScaledLinearBetas())
        >>> round(float(chain.alpha(1000.0)), 4)  # 7% of the data's amplitude is left at the end
        0.0683

    Reference: Rombach et al. 2022 (latent diffusion, arXiv:2112.10752), by its published code.
    """

    steps: int = eqx.field(static=True, default=1000)
    first: float = eqx.field(static=True, default=8.5e-4)
    last: float = eqx.field(static=True, default=0.012)

    def __check_init__(self):
        _check(self, "first", "last")

    @property
    def values(self):
        return np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2


class CosineBetas(AbstractBetas):
    """beta_k = 1 - a_k / a_(k-1), at most `largest`, with a_k = cos^2((k/N + offset) / (1 + offset) pi/2).

    Arguments:
        steps: Number of steps, N.
        offset: Offset s of the cosine, which keeps the first betas from being too small.
        largest: Largest beta.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than two steps, and numbers that are traced.

    Example:
        >>> CosineBetas(4).values.round(3)
        array([0.153, 0.417, 0.708, 0.999])
        >>> chain = sgm.UniformChain(27, CosineBetas(500))

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 17).
    """

    steps: int = eqx.field(static=True, default=1000)
    offset: float = eqx.field(static=True, default=0.008)
    largest: float = eqx.field(static=True, default=0.999)

    def __check_init__(self):
        _check(self, "offset", "largest")

    @property
    def values(self):
        kept = np.cos((np.arange(self.steps + 1) / self.steps + self.offset) / (1 + self.offset) * np.pi / 2) ** 2
        return np.minimum(1 - kept[1:] / kept[:-1], self.largest)


class SigmoidBetas(AbstractBetas):
    """beta_k = first + (last - first) sigmoid(y_k), with y evenly from -reach to reach.

    Arguments:
        steps: Number of steps, N.
        first: Lower limit of the sigmoid.
        last: Upper limit of the sigmoid.
        reach: Largest argument of the sigmoid.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than two steps, and numbers that are traced.

    Example:
        >>> SigmoidBetas(3).values.round(5)
        array([0.00015, 0.01005, 0.01995])
        >>> chain = sgm.DiscreteChain(SigmoidBetas(1000, last=0.03))

    Reference: Xu et al. 2022 (arXiv:2203.02923).
    """

    steps: int = eqx.field(static=True, default=1000)
    first: float = eqx.field(static=True, default=1e-4)
    last: float = eqx.field(static=True, default=0.02)
    reach: float = eqx.field(static=True, default=6.0)

    def __check_init__(self):
        _check(self, "first", "last", "reach")

    @property
    def values(self):
        return self.first + (self.last - self.first) / (1 + np.exp(np.linspace(self.reach, -self.reach, self.steps)))


class SohlDicksteinBetas(AbstractBetas):
    """b_k = 1 / (N, ..., 2), evenly: each step destroys a like share of the data's variance, about 1/N is left.

    They are raised to lie above `floor`, and by `step1` more at step one, whose variance is the least of the model:
    beta_k = m_k + b_k (1 - m_k - 1e-5).

    Arguments:
        steps: Number of steps, N.
        floor: Smallest beta.
        step1: What is added to the smallest beta at the first step.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than two steps, and numbers that are traced.

    Example:
        >>> chain = sgm.DiscreteChain(SohlDicksteinBetas(40))
        >>> round(float(np.prod(1 - chain.betas.values)), 3)  # about 1/40 is left
        0.023

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585), by its published code (`generate_beta_arr`).
    """

    steps: int = eqx.field(static=True, default=1000)
    floor: float = eqx.field(static=True, default=1e-6)
    step1: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        _check(self, "floor", "step1")

    @property
    def values(self):
        least = np.full(self.steps, self.floor)
        least[0] += self.step1
        return least + (1 - least - 1e-5) / np.linspace(self.steps, 2, self.steps)


class HarmonicBetas(AbstractBetas):
    """beta_k = 1 / (N - k + 1): each step destroys a like share of the data, 1/N, and nothing is left of them.

    Arguments:
        steps: Number of steps, N.

    Raises:
        TypeError: for a number of steps that is not whole.
        ValueError: for fewer than two steps.

    Example:
        >>> HarmonicBetas(4).values.round(3)
        array([0.25 , 0.333, 0.5  , 1.   ])
        >>> chain = sgm.AbsorbingChain(27, HarmonicBetas(256))

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.4.1); Austin et al. 2021 (arXiv:2107.03006).
    """

    steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        _check(self)

    @property
    def values(self):
        return 1 / np.arange(self.steps, 0, -1)


class FirstBetas(AbstractBetas):
    """The betas of a chain's first steps, as `chain.until` has them. Such a chain need not end in its prior.

    Arguments:
        betas: Betas of the whole chain.
        steps: Number of first steps, at most as many as there are.

    Raises:
        TypeError: for betas of another type, and a number that is not whole.
        ValueError: for no step, and more steps than there are.

    Example:
        >>> chain = sgm.BinomialChain(FirstBetas(HarmonicBetas(1000), 300))
        >>> chain.steps
        300
        >>> chain.ends_in_pure_noise
        False
    """

    betas: AbstractBetas
    steps: int = eqx.field(static=True)

    def __check_init__(self):
        check_instance("FirstBetas", "betas", self.betas, AbstractBetas, "sgm.sde.HarmonicBetas(1000)")
        count = len(self.betas.values)
        if check_count("FirstBetas", "steps", self.steps) > count:
            raise ValueError(f"FirstBetas: steps = {self.steps}; pass steps <= {count}, of which there are betas.")

    @property
    def values(self):
        return self.betas.values[: self.steps]


class ZeroTerminalSNR(AbstractBetas):
    """Betas after which nothing is left of the data: beta_N = 1.

    Where alpha at k is a_k for the `betas` themselves, it is (a_k - a_N) a_1 / (a_1 - a_N) here: 0 at the last step,
    and as before at the first.

    Arguments:
        betas: Betas that are rescaled.

    Raises:
        TypeError: for betas of another type.

    Example:
        >>> chain = sgm.DiscreteChain(ZeroTerminalSNR(ScaledLinearBetas()))
        >>> float(chain.alpha(1000.0))
        0.0

    Reference: Lin et al. 2023 (arXiv:2305.08891, algorithm 1).
    """

    betas: AbstractBetas = eqx.field(default_factory=LinearBetas)

    def __check_init__(self):
        check_instance("ZeroTerminalSNR", "betas", self.betas, AbstractBetas, "sgm.sde.LinearBetas(1000)")

    @property
    def values(self):
        betas = self.betas.values
        alpha = np.sqrt(np.cumprod(1 - betas))
        # At the last step 0 to the bit, and at the first the alpha of before.
        alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
        return np.concatenate([betas[:1], 1 - (alpha[1:] / alpha[:-1]) ** 2])


def linear_betas(*options: Any, **named: Any) -> Table:
    """The table of `LinearBetas`.

    Arguments:
        options, named: Arguments of `LinearBetas`.

    Returns:
        beta_1 ... beta_N, float64.

    Example:
        >>> betas = np.append(linear_betas(99, 1e-3, 0.1), 1.0)  # a last step after which nothing is left of the data
        >>> chain = sgm.DiscreteChain(betas)
    """
    return LinearBetas(*options, **named).values


def cosine_betas(*options: Any, **named: Any) -> Table:
    """The table of `CosineBetas`.

    Arguments:
        options, named: Arguments of `CosineBetas`.

    Returns:
        beta_1 ... beta_N, float64.

    Example:
        >>> cosine_betas(4, largest=0.99).round(3)
        array([0.153, 0.417, 0.708, 0.99 ])
    """
    return CosineBetas(*options, **named).values


def sigmoid_betas(*options: Any, **named: Any) -> Table:
    """The table of `SigmoidBetas`.

    Arguments:
        options, named: Arguments of `SigmoidBetas`.

    Returns:
        beta_1 ... beta_N, float64.

    Example:
        >>> sigmoid_betas(3, reach=4.0).round(5)
        array([0.00046, 0.01005, 0.01964])
    """
    return SigmoidBetas(*options, **named).values


def sohl_dickstein_betas(*options: Any, **named: Any) -> Table:
    """The table of `SohlDicksteinBetas`.

    Arguments:
        options, named: Arguments of `SohlDicksteinBetas`.

    Returns:
        beta_1 ... beta_N, float64.

    Example:
        >>> betas = sohl_dickstein_betas(40)
        >>> betas[[0, -1]].round(3)
        array([0.026, 0.5  ])
    """
    return SohlDicksteinBetas(*options, **named).values


def _check(betas, *numbers):
    name = type(betas).__name__
    check_count(name, "steps", betas.steps, 2)
    check_concrete(name, **{number: getattr(betas, number) for number in numbers})
