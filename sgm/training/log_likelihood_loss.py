"""Maximum likelihood through the probability flow."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Shaped

from sgm.checks import check_at_least, check_concrete, check_examples, check_instance, check_positive
from sgm.likelihood.flow import Course
from sgm.likelihood.log_prob import log_prob_of_each
from sgm.likelihood.trace import AbstractTrace, Hutchinson
from sgm.model.base import check_process
from sgm.model.per_example import separate
from sgm.model.with_units import WithUnits
from sgm.nn.condition import Condition, flat_condition
from sgm.nn.units import Units
from sgm.training.base import AbstractDrawn, AbstractLoss


class Probed(AbstractDrawn):
    """Training examples, with the key of the probes of each."""

    x0: Float[Array, "n *shape"]
    cond: Condition | None
    key: Shaped[Array, "n *words"]
    levels: None = None


class LogLikelihoodLoss(AbstractLoss):
    """-log p(x) / D of standardised data, in nats a dimension, by the flow that `sgm.log_prob` solves.

    Every step costs some hundred evaluations of the network, forwards and backwards: it is meant for models that are
    trained by `Loss` already. Networks are called without dropout.

    Arguments:
        trace: Estimator of the divergence. The gradient of a random one is unbiased.
        tolerance: Tolerance of the adaptive solve.

    Raises:
        TypeError: for a trace that is no trace estimator.
        ValueError: for a tolerance that is not above 0.

    Example:
        >>> loss = sgm.training.LogLikelihoodLoss(tolerance=1e-2)
        >>> sde, model, history = sgm.train(sde, model, data, key, steps=2, loss=loss)

    Reference: Grathwohl et al. 2019 (FFJORD, arXiv:1810.01367); Song et al. 2021 (arXiv:2101.09258, section 3).
    """

    trace: AbstractTrace = Hutchinson(1)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        check_instance("LogLikelihoodLoss", "trace", self.trace, AbstractTrace, "sgm.Hutchinson(1)")
        check_concrete("LogLikelihoodLoss", tolerance=self.tolerance)
        check_positive("LogLikelihoodLoss", "tolerance", self.tolerance)

    @property
    def condition_dropout(self):
        return 0.0

    @property
    def masking(self):
        return None

    def check(self, sde):
        check_process("LogLikelihoodLoss", sde, "the loss sgm.CategoricalLoss()")

    def perturb(self, sde, model, x0, key, cond=None, held_out=False):
        batch = check_examples("LogLikelihoodLoss", x0, model.shape)
        cond, cond_axis = flat_condition("LogLikelihoodLoss", model, cond, batch)
        n = math.prod(batch)
        check_at_least("LogLikelihoodLoss", "the number of examples", n)
        self.trace.check(key, model.shape)
        if cond_axis is None:
            cond = jax.tree.map(lambda part: jnp.broadcast_to(part, (n, *part.shape)), cond)
        return Probed(x0=x0.reshape(n, *model.shape), cond=cond, key=jr.split(key, n))

    def errors(self, sde, model, drawn):
        n, shape = len(drawn.x0), model.shape
        # The units of the data change log p by what no training changes.
        model, cond, own = separate("LogLikelihoodLoss", WithUnits(model, Units()), drawn.cond, 0, n)
        result = log_prob_of_each(
            sde,
            model,
            (drawn.x0, own, drawn.key, None),
            cond,
            self.trace,
            diffrax.Dopri5(),
            diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance),
            sde.prior,
            adjoint=None,
            mesh=None,
            course=Course(),
        )
        return -result.value / math.prod(shape)
