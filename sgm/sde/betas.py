"""Tables beta_1 ... beta_N of discrete chains, x_k = sqrt(1 - beta_k) x_(k-1) + sqrt(beta_k) noise, in float64."""

import numpy as np
from jaxtyping import Float64

from sgm.checks import check_at_least, check_concrete

Betas = Float64[np.ndarray, " steps"]


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Betas:
    """Evenly spaced. Source: Ho et al. 2020 (DDPM, arXiv:2006.11239, section 4)."""
    check_at_least("linear_betas", "steps", steps, 2)
    check_concrete("linear_betas", first=first, last=last)
    return np.linspace(first, last, steps)


def cosine_betas(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Betas:
    """beta_k = 1 - a_k / a_(k-1), at most `largest`, with a_k = cos^2((k/N + offset) / (1 + offset) pi/2).

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 17).
    """
    check_at_least("cosine_betas", "steps", steps, 2)
    check_concrete("cosine_betas", offset=offset, largest=largest)
    kept = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - kept[1:] / kept[:-1], largest)


def sigmoid_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02, reach: float = 6.0) -> Betas:
    """first + (last - first) sigmoid(y), y evenly from -reach to reach. Source: Xu et al. 2022 (arXiv:2203.02923)."""
    check_at_least("sigmoid_betas", "steps", steps, 2)
    check_concrete("sigmoid_betas", first=first, last=last, reach=reach)
    return first + (last - first) / (1 + np.exp(-np.linspace(-reach, reach, steps)))


def sohl_dickstein_betas(steps: int = 1000, floor: float = 1e-6, step1: float = 1e-3) -> Betas:
    """b_k = 1 / (N, ..., 2), evenly: each step destroys a like share of the data's variance, about 1/N is left.

    They are raised to lie above `floor`, and by `step1` more at step one, whose variance is the least of the model:
    beta_k = m_k + b_k (1 - m_k - 1e-5).
    Source: Sohl-Dickstein et al. 2015 (arXiv:1503.03585), by its published code (`generate_beta_arr`).
    """
    check_at_least("sohl_dickstein_betas", "steps", steps, 2)
    check_concrete("sohl_dickstein_betas", floor=floor, step1=step1)
    least = np.full(steps, floor)
    least[0] += step1
    return least + (1 - least - 1e-5) / np.linspace(steps, 2, steps)
