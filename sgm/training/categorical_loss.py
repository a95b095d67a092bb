"""The loss of models of categories."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from sgm.checks import check_at_least, check_concrete, check_instance, is_traced
from sgm.likelihood.categorical_elbo import term
from sgm.model.categorical import check_categories
from sgm.nn.condition import Condition, flat_condition
from sgm.sde.categorical import AbstractCategoricalChain, Step
from sgm.sde.step_sampling import AbstractStepSampling, UniformSteps
from sgm.training.base import AbstractDrawn, AbstractLoss

LARGEST_MISMATCH = 0.01  # nats an entry


class NoisedCategories(AbstractDrawn):
    """Training examples of categories, with all the randomness of their errors, along a leading axis."""

    x0: Int[Array, "n *shape"]
    x: Int[Array, "n *shape"]
    step: Step
    weight: Float[Array, " n"]
    cond: Condition | None
    key: Shaped[Array, "n *words"] | None
    levels: None = None


class CategoricalLoss(AbstractLoss):
    """The negative bound of a chain of categories in nats a dimension, from one random step of each example.

    The mean is that of `sgm.categorical_elbo`, less the divergence at the prior, which no training changes. The steps
    of a batch are stratified. The divergences are exact for the x_k that are drawn.

    Arguments:
        times: Distribution of the steps. It changes no mean.
        cross_entropy: Weight of an auxiliary -log p(x_0 | x_k), the mean over all steps. The bound is the sum of its
            N terms, so that a weight c of one term, as in the code of Austin et al., is c N here.

    Raises:
        ValueError: for a negative weight.

    Example:
        >>> experiment = sgm.Experiment(
        ...     data=sgm.data.Heartbeat(), network=partial(MLP, width=64), sde=sgm.BinomialChain(),
        ...     prediction=sgm.model.Logits(), loss=CategoricalLoss()
        ... )

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, eq. 14); Austin et al. 2021 (arXiv:2107.03006, eq. 5).
    """

    times: AbstractStepSampling = UniformSteps()
    cross_entropy: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        check_instance("CategoricalLoss", "times", self.times, AbstractStepSampling, "sgm.sde.UniformSteps()")
        check_concrete("CategoricalLoss", cross_entropy=self.cross_entropy)
        check_at_least("CategoricalLoss", "cross_entropy", self.cross_entropy, 0)

    @property
    def condition_dropout(self):
        return 0.0

    @property
    def masking(self):
        return None

    def check(self, sde):
        check_instance("CategoricalLoss", "sde", sde, AbstractCategoricalChain, "sgm.BinomialChain()")
        if is_traced(sde):
            return
        with jax.ensure_compile_time_eval():  # The loss may be called inside of a trace.
            mismatch = max(float(sde.prior_mismatch(jnp.asarray([category]))) for category in range(sde.categories))
        if mismatch > LARGEST_MISMATCH:
            warnings.warn(
                f"CategoricalLoss: at the end of {type(sde).__name__} an entry is still up to {mismatch:.2g} nats from "
                "the prior, by which samples and the bound are off; pass more noise, such as HarmonicBetas.",
                stacklevel=2,
            )

    def perturb(self, sde, model, x0, key, cond=None, held_out=False):
        batch = check_categories("CategoricalLoss", x0, model.shape, model.categories)
        cond, cond_axis = flat_condition("CategoricalLoss", model, cond, batch)
        n = math.prod(batch)
        check_at_least("CategoricalLoss", "the number of examples", n)
        if cond_axis is None:
            cond = jax.tree.map(lambda part: jnp.broadcast_to(part, (n, *part.shape)), cond)
        key_time, key_noise, key_model = jr.split(key, 3)
        chances = self.times.probabilities(sde)
        strata = (jr.uniform(key_time) + jnp.arange(n) / n) % 1
        places = jnp.searchsorted(jnp.asarray(np.cumsum(chances), strata.dtype), strata, side="right")
        places = jnp.minimum(places, sde.steps - 1)
        x0 = x0.reshape(n, *model.shape).astype(jnp.int32)
        is_category = jnp.all(((x0 >= 0) & (x0 < model.categories)).reshape(n, -1), axis=1)
        return NoisedCategories(
            x0=x0,
            x=jax.vmap(sde.noised)(places + 1, x0, jr.split(key_noise, n)),
            step=jax.tree.map(lambda numbers: jnp.asarray(numbers)[places], sde.every_step),
            # Traced examples could not be looked at: what is no category has no error.
            weight=jnp.where(is_category, jnp.asarray(1 / chances, strata.dtype)[places], jnp.nan),
            cond=cond,
            key=None if held_out else jr.split(key_model, n),
        )

    def errors(self, sde, model, drawn):
        def error(example):
            step, x0, x = example.step, example.x0, example.x
            logits = model.predict(step.level, x, example.cond, example.key)
            error = term(sde, step, x0, x, logits)
            if self.cross_entropy > 0:
                logs = jax.nn.log_softmax(logits + sde.log_likelihood(step.level, x), axis=-1)
                of_x0 = jnp.take_along_axis(logs, x0[..., None], axis=-1)
                error = error - self.cross_entropy / sde.steps * jnp.sum(of_x0)
            return example.weight * error / x0.size

        return jax.vmap(error)(drawn)
