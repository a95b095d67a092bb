"""The variational lower bound of a chain of categories on log p(x_0), term by term.

log p(x_0) >= E_q[log p(x_0 | x_1)] - sum over k = 2 ... N of KL(q(x_(k-1) | x_k, x_0) || p(x_(k-1) | x_k))
              - KL(q(x_N | x_0) || p(x_N))

Entries are independent given x_0, and in each step of the model, so that every divergence is a sum over entries, exact.
What is estimated is its mean over x_k alone.
"""

import math
from typing import Literal, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from sgm.checks import check_at_least, check_count, check_instance, check_key, trace_floats
from sgm.likelihood.categorical_last_step import AbstractCategoricalReconstruction, Modelled
from sgm.likelihood.elbo import ELBO
from sgm.model.categorical import AbstractCategoricalModel, check_categories
from sgm.model.per_example import separate
from sgm.model.reverse import check_pair
from sgm.nn.condition import Condition, check_density, check_values, flat_condition
from sgm.parallel.devices import mesh_for, replicate
from sgm.parallel.spread import group_size, in_groups, spread
from sgm.sde.categorical import LOG_ZERO, AbstractCategoricalChain, Categories, Step, divergence
from sgm.sde.step_sampling import AbstractStepSampling, UniformSteps


@overload
def categorical_elbo(
    chain: AbstractCategoricalChain,
    model: AbstractCategoricalModel,
    x: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractCategoricalReconstruction = Modelled(),
    steps: int | None = None,
    times: AbstractStepSampling = UniformSteps(),
    draws: int = 2,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def categorical_elbo(
    chain: AbstractCategoricalChain,
    model: AbstractCategoricalModel,
    x: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractCategoricalReconstruction = Modelled(),
    steps: int | None = None,
    times: AbstractStepSampling = UniformSteps(),
    draws: int = 2,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> ELBO: ...
def categorical_elbo(
    chain: AbstractCategoricalChain,
    model: AbstractCategoricalModel,
    x: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractCategoricalReconstruction = Modelled(),
    steps: int | None = None,
    times: AbstractStepSampling = UniformSteps(),
    draws: int = 2,
    full: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "*batch"] | ELBO:
    """An unbiased estimate of the lower bound on log p(x) of categories, in nats, of one example or a batch.

    Arguments:
        chain: Chain of categories.
        model: Model of them.
        x: Examples, integers of shape `(*batch, *model.shape)`.
        key: Key of all randomness.
        cond: One condition for all examples, or one each.
        reconstruction: Last step: `Modelled()`, or `ForwardEntropy()` of Sohl-Dickstein et al. 2015, with which the
            value is a bound only where the `reconstruction` of `Modelled()` is above it in the mean.
        steps: Number of the N - 1 transitions that each draw visits, one in each of as many equal parts of `times`;
            None for all of them.
        times: Distribution of the transitions that are visited. It changes no mean.
        draws: Number of independent estimates, of which the mean is returned; two or more for a standard error.
        full: Whether an `ELBO` is returned, with its terms and its standard error.
        mesh: Devices over which a batch is spread, as in `sgm.log_prob`.

    Returns:
        The bound of each example, in nats; or an `ELBO`.

    Raises:
        TypeError: for a process that is no chain of categories, and a model that is not of one.
        ValueError: for a chain of other categories than the model's, examples that are no categories or of another
            shape than the model's, and a condition that is not the model's.

    Example:
        >>> chain = sgm.BinomialChain(HarmonicBetas(20))
        >>> model = Enumerated(chain, jnp.asarray([[0, 0, 1], [1, 1, 0]]))
        >>> bound = sgm.categorical_elbo(chain, model, jnp.asarray([[1, 1, 0]]), jax.random.key(0), draws=8)

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.4); Austin et al. 2021 (arXiv:2107.03006, eq. 1).
    """
    call = "categorical_elbo"
    check_instance(call, "chain", chain, AbstractCategoricalChain, "sgm.BinomialChain()")
    check_instance(call, "model", model, AbstractCategoricalModel, "sgm.CategoricalModel(network, 2, shape=(20,))")
    check_pair(call, chain, model)
    check_instance(
        call, "reconstruction", reconstruction, AbstractCategoricalReconstruction, "sgm.likelihood.Modelled()"
    )
    check_instance(call, "times", times, AbstractStepSampling, "sgm.sde.UniformSteps()")
    check_key(call, key)
    check_count(call, "draws", draws)
    if steps is not None and check_count(call, "steps", steps) > chain.steps - 1:
        raise ValueError(f"{call}: steps = {steps}; pass steps <= {chain.steps - 1}, or None for all transitions.")
    batch = check_categories(call, x, model.shape, model.categories)
    check_values(call, cond)
    check_density(call, cond)
    cond, cond_axis = flat_condition(call, model, cond, batch)
    n = math.prod(batch)
    check_at_least(call, "the number of examples", n)
    x, keys = jnp.asarray(x, jnp.int32).reshape(n, *model.shape), jr.split(key, n)
    model, cond, own = separate(call, model, cond, cond_axis, n)
    model = trace_floats(model)
    mesh = mesh_for(call, (model, x, keys, own, cond), mesh)
    model, x, keys, own, cond = replicate((model, x, keys, own, cond), mesh)
    result = _elbo((chain, model, cond, reconstruction), (x, keys, own), steps, times, draws, mesh)
    result = jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), result)
    return result if full else result.value


def term(
    chain: AbstractCategoricalChain, step: Step, x0: Categories, x: Categories, logits: Float[Array, "..."]
) -> Float[Array, ""]:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) of one example, in nats; -log p(x_0 | x_t) where s is 0.

    Arguments:
        chain: Chain.
        step: Numbers of the step from s to t.
        x0: Example.
        x: State x_t.
        logits: Logits of the model at t.
    """
    return jnp.sum(divergence(chain.log_posterior(step, x, x0), chain.log_reverse(step, x, logits)))


@eqx.filter_jit
def _elbo(shared, each, steps, times, draws, mesh):
    size = group_size((draws, *each[0].shape[1:], shared[0].states))

    def of_batch(shared, each):
        return in_groups(jax.vmap(lambda each: _elbo_one(shared, each, steps, times, draws)), each, size)

    return spread(of_batch, shared, each, mesh)


def _elbo_one(shared, each, steps, times, draws):
    chain, model, cond, reconstruction = shared
    x0, key, own = each
    model, cond = own.join(model, cond)
    table = jax.tree.map(jnp.asarray, chain.every_step)
    chances = times.probabilities(chain)[1:]
    chances = chances / np.sum(chances)

    def at(k, key):
        """The chain's term of step k."""
        step, x = jax.tree.map(lambda numbers: numbers[k - 1], table), chain.noised(k, x0, key)
        return term(chain, step, x0, x, model.predict(step.level, x, cond))

    def draw(key):
        key_last, key_steps, key_noise = jr.split(key, 3)
        last = reconstruction.log_prob(chain, x0, -at(jnp.asarray(1), key_last))
        if steps is None:
            ks, weights = jnp.arange(2, chain.steps + 1), jnp.ones(chain.steps - 1)
        else:
            strata = (jnp.arange(steps, dtype=float) + jr.uniform(key_steps, (steps,))) / steps
            places = jnp.searchsorted(jnp.asarray(np.cumsum(chances), strata.dtype), strata, side="right")
            places = jnp.minimum(places, len(chances) - 1)
            ks, weights = places + 2, jnp.asarray(1 / (steps * chances), strata.dtype)[places]
        kls = jax.lax.map(lambda each: at(*each), (ks, jr.split(key_noise, len(ks))))
        return last, kls * weights

    lasts, transitions = jax.vmap(draw)(jr.split(key, draws))
    sums, prior = jnp.sum(transitions, axis=1), chain.prior_mismatch(x0)
    values = jax.lax.stop_gradient(lasts - sums)
    value = jnp.mean(lasts - sums) - prior
    # What has no probability has LOG_ZERO as its logarithm. Traced examples could not be looked at.
    value = jnp.where(value < 0.1 * LOG_ZERO, -jnp.inf, value)
    value = jnp.where(jnp.all((x0 >= 0) & (x0 < chain.categories)), value, jnp.nan)
    return ELBO(
        value=value,
        stderr=jnp.std(values, ddof=1) / draws**0.5,
        reconstruction=jnp.mean(lasts),
        diffusion=jnp.mean(sums),
        prior=prior,
        transitions=jnp.mean(transitions, axis=0) if steps is None else None,
    )
