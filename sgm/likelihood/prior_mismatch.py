"""How far the end of a process is from its prior."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_array, check_finite, is_traced
from sgm.model.base import check_process
from sgm.sde.base import AbstractSDE
from sgm.sde.level import cos_of


def prior_mismatch(sde: AbstractSDE, x0: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """KL(p(x_t1 | x0) || prior) = (cos^2 (|x0|^2 - D) - D log(sin^2)) / 2, in nats, at the noise level of t1.

    Its mean over data bounds KL(p_t1 || prior), which samples and likelihoods lose on average by taking the prior for
    the unknown p_t1.

    Arguments:
        sde: Process.
        x0: Clean, standardised examples.

    Returns:
        The divergence of each example, in nats.

    Raises:
        ValueError: for examples that are no real numbers, and entries that are not finite.

    Example:
        >>> round(float(prior_mismatch(sgm.VE(sigma_max=50.0), jnp.ones((1, 2)))[0]), 4)
        0.0004
        >>> round(float(prior_mismatch(sgm.VE(sigma_max=1.0), jnp.ones((1, 2)))[0]), 4)  # far too little noise: log(2)
        0.6931

    Reference: Kingma et al. 2021 (arXiv:2107.00630), the prior loss.
    """
    check_process("prior_mismatch", sde)
    check_array("prior_mismatch", "x0", x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise ValueError(f"prior_mismatch: x0 has dtype {x0.dtype}; pass real numbers, as models see the data.")
    check_finite("prior_mismatch", x0, "x0")
    entries = x0.reshape(x0.shape[0], -1)
    cos2 = cos_of(sde.level(sde.t1)) ** 2
    dim = entries.shape[1]
    return 0.5 * (cos2 * (jnp.sum(entries**2, axis=1) - dim) - dim * jnp.log1p(-cos2))


LARGEST_MISMATCH = 0.05  # nats
FEWEST = 8  # Examples, below which nothing can be told of a density.


def warn_of_mismatch(call: str, sde: AbstractSDE, x: Any, stacklevel: int = 3) -> None:
    """Warn if what is left of the data at t1 is far from the prior: KL(p_t1 || prior) above `LARGEST_MISMATCH` nats.

    The divergence is that of independent Gaussians with the mean and variance of each entry. Traced arrays, and fewer
    than eight examples, pass.

    Arguments:
        call: Name of the call that was given the examples.
        sde: Process.
        x: Clean examples along the first axis, as a model sees them.
        stacklevel: Whose line the warning names; 3 is the caller of the function that calls this one.
    """
    if is_traced((sde, x)) or len(x) < FEWEST:
        return
    entries = np.asarray(x, np.float64).reshape(len(x), -1)
    cos2 = float(cos_of(sde.level(sde.t1))) ** 2
    variance = np.var(entries, axis=0, ddof=1)
    # Less what few examples add to the square of a mean.
    square = np.maximum(np.mean(entries, axis=0) ** 2 - variance / len(x), 0)
    change = cos2 * (variance - 1)
    mismatch = 0.5 * float(np.sum(cos2 * square + change - np.log1p(change)))
    if mismatch > LARGEST_MISMATCH:
        warnings.warn(
            f"{call}: at t1 of {type(sde).__name__} the data are still about {mismatch:.2g} nats from the prior "
            "N(0, rho^2), by which samples and log p are off; pass data of mean 0 and about unit scale, or a process "
            "that ends in more noise, such as sgm.VP(sgm.sde.Cosine(ratio_max=1e4)) or a larger sigma_max.",
            stacklevel=stacklevel,
        )
