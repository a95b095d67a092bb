import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.checks import check_array, check_finite
from sgm.model.base import check_process
from sgm.sde.base import AbstractSDE
from sgm.sde.level import cos_of


def prior_mismatch(sde: AbstractSDE, x0: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """KL(p(x_t1 | x0) || prior) in nats, for each clean example `x0` along the first axis.

    At the noise level of t1 it is (cos^2 (|x0|^2 - D) - D log(sin^2)) / 2. Its mean over data bounds KL(p_t1 || prior),
    which is what samples and likelihoods lose on average by taking the prior for the unknown p_t1.
    Source: Kingma et al. 2021 (arXiv:2107.00630), the prior loss.
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
