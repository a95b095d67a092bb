"""The variational bound of a chain of categories."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgm.checks import check_count, check_instance
from sgm.evaluation.metric import AbstractMetric, Row
from sgm.likelihood.categorical_elbo import categorical_elbo
from sgm.likelihood.categorical_last_step import AbstractCategoricalReconstruction, Modelled
from sgm.nn.condition import condition_from
from sgm.sde.categorical import AbstractCategoricalChain
from sgm.sde.step_sampling import AbstractStepSampling, UniformSteps


class CategoricalBound(AbstractMetric):
    """The bound on log p(x_0) of a chain of categories, beside the truth where the data know it.

    Arguments:
        reconstruction: Last step of the bound: `Modelled()`, or `ForwardEntropy()` of Sohl-Dickstein et al. 2015.
        steps: Number of the chain's steps that each of two draws visits, for each example; None for all.
        times: Distribution of the steps that are visited.

    Raises:
        TypeError: for a number of steps that is not whole; when used, for a process that is no chain of categories.
        ValueError: for fewer than one step.

    Example:
        >>> data, chain = sgm.data.Heartbeat(10, 5), sgm.UniformChain(2, sgm.sde.CosineBetas(20))
        >>> model = sgm.model.Enumerated(chain, data.examples)
        >>> report = sgm.evaluate(chain, model, data, [CategoricalBound()], key, n=8)
        >>> bits, truth = report["bound_bits"].value, report["truth_bits"].value

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.4); Austin et al. 2021 (arXiv:2107.03006, eq. 1).
    """

    reconstruction: AbstractCategoricalReconstruction = Modelled()
    steps: int | None = eqx.field(static=True, default=None)
    times: AbstractStepSampling = UniformSteps()

    def __check_init__(self):
        if self.steps is not None:
            check_count("CategoricalBound", "steps", self.steps)

    def check(self, context):
        remedy = "pass a chain such as sgm.BinomialChain(), or the metric LogLikelihood()"
        check_instance("CategoricalBound", "the process", context.sde, AbstractCategoricalChain, remedy=remedy)

    def columns(self, context, x, fields, key):
        steps = None if self.steps is None else min(self.steps, context.sde.steps - 1)
        how = {"steps": steps, "times": self.times, "full": True}
        found = categorical_elbo(context.sde, context.model, x, key, cond=condition_from(fields), **how)
        last = jax.vmap(partial(self.reconstruction.log_prob, context.sde))(
            jnp.asarray(x, jnp.int32), found.reconstruction
        )
        modelled, own, last = (np.asarray(part, np.float64) for part in (found.value, found.reconstruction, last))
        # Summed so that the model's own last step gives the model's own bound, to the bit.
        return {"bound": modelled + (last - own), "bound_modelled": modelled}

    def rows(self, context, columns):
        bound, data = columns["bound"], context.data
        note = f"on log P(x_0), last step {type(self.reconstruction).__name__}"
        if np.mean(columns["bound_modelled"]) < np.mean(bound):
            # The last step promises more than the model's own has: nothing is bounded.
            bound, note = np.full_like(bound, np.nan), f"{note}: no bound, since the model's own last step is worse"
        rows = [
            Row.mean("bound", bound, "nats", note),
            Row.mean("bound_bits", bound / math.log(2), "bits an example"),
            Row.mean("bits_per_dim", -bound / math.log(2) / math.prod(data.shape), "bits", "at most"),
        ]
        if data.entropy is not None:
            truth = -data.entropy / math.log(2)
            rows.append(Row("truth_bits", truth, unit="bits an example", note="no mean is above it", is_score=False))
        return rows
