"""Small chains of categories, and a model of any numbers, that tests share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from sgm.model import AbstractCategoricalModel
from sgm.sde import AbsorbingChain, BinomialChain, HarmonicBetas, LinearBetas, UniformChain

STEPS = 3
CHAINS = {
    "binomial": BinomialChain(LinearBetas(STEPS, 0.2, 0.5), p=0.3),
    "uniform": UniformChain(3, HarmonicBetas(STEPS)),
    "absorbing": AbsorbingChain(2, HarmonicBetas(STEPS)),
}


class _Lookup(AbstractCategoricalModel):
    """A model of a few entries whose logits are any numbers, for each state and level."""

    table: jax.Array
    levels: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)
    categories: int = eqx.field(static=True)
    states: int = eqx.field(static=True)

    def predict(self, level, x, cond=None, key=None):
        return self.table[(jnp.argmin(jnp.abs(self.levels - level)), *x)]


def lookup(chain, size=2):
    table = jr.normal(jr.key(7), (chain.steps, *[chain.states] * size, size, chain.categories))
    return _Lookup(table, jnp.asarray(chain.every_step.level), (size,), chain.categories, chain.states)


@eqx.filter_jit
def reverse_of_each(chain, step, model, states):
    """log p(x_s | x_t) of each state of each entry, for each x_t."""
    level = jnp.asarray(step.level)
    return jax.vmap(lambda x: chain.log_reverse(step, x, model.predict(level, x)))(jnp.asarray(states))
