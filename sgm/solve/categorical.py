"""Ancestral sampling of chains of categories."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Int

from sgm.checks import check_count, check_instance
from sgm.model.categorical import AbstractCategoricalModel
from sgm.sde.categorical import AbstractCategoricalChain
from sgm.solve.sampling import AbstractSamplingMethod


class CategoricalAncestral(AbstractSamplingMethod[AbstractCategoricalChain, AbstractCategoricalModel]):
    """x_s ~ p(x_s | x_t), the sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t), of each entry, from N to 0.

    The steps may be fewer than the chain's, since q(x_s | x_t, x_0) is known for any s < t. A step draws the entries
    independently of one another, so that fewer steps leave more of their dependence out.

    Arguments:
        steps: Number of steps, evenly spaced from N to 0; None for all N.

    Raises:
        TypeError: for a number of steps that is not whole, and, when used, for another kind of process.
        ValueError: for fewer than one step, and, when used, for more than the chain's.

    Example:
        >>> chain = sgm.BinomialChain(HarmonicBetas(100))
        >>> model = Enumerated(chain, jnp.asarray([[0, 0, 1], [1, 1, 0]]))
        >>> x = sgm.sample(chain, model, key, 8, method=CategoricalAncestral(10))

    Reference: Austin et al. 2021 (D3PM, arXiv:2107.03006, section 3.3).
    """

    steps: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.steps is not None:
            check_count("CategoricalAncestral", "steps", self.steps)

    def times(self, chain: AbstractCategoricalChain) -> Int[np.ndarray, " times"]:
        """The times at which it stops, from N down to 0."""
        count = chain.steps if self.steps is None else self.steps
        return np.rint(np.linspace(chain.steps, 0, count + 1)).astype(int)

    def check(self, sde):
        check_instance("CategoricalAncestral", "sde", sde, AbstractCategoricalChain, "sgm.BinomialChain()")
        if self.steps is not None and self.steps > sde.steps:
            raise ValueError(
                f"CategoricalAncestral: steps = {self.steps}, but the chain has {sde.steps}; pass as many or fewer."
            )

    def check_options(self, sde, saveat, adjoint):
        for name, value in (("saveat", saveat), ("adjoint", adjoint)):
            if value is not None:
                raise ValueError(f"sample: {name} is given, but draws of categories have no such choice; leave it out.")

    def draw(self, sde, model, cond, key, x1, saveat, adjoint, progress, *, levels, from_pure_noise):
        times = self.times(sde)
        steps = jax.tree.map(jnp.asarray, sde.steps_between(times[1:], times[:-1]))
        count = len(times) - 1

        def advance(carry, each):
            x, finite, meter = carry
            step, key, place = each
            logs = sde.log_reverse(step, x, model.predict(step.level, x, cond))
            finite = finite & jnp.all(jnp.isfinite(logs))
            meter = progress.step(meter, (place / count).astype(step.level.dtype))
            return (jr.categorical(key, logs).astype(jnp.int32), finite, meter), None

        start = jnp.asarray(x1, jnp.int32), jnp.asarray(True), progress.init()
        (x, finite, meter), _ = jax.lax.scan(advance, start, (steps, jr.split(key, count), jnp.arange(1.0, count + 1)))
        progress.close(meter)
        # No category is nan: -1 is none.
        return jnp.where(finite, x, -1), jnp.asarray(count), finite
