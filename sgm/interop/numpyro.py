"""A model as a distribution of NumPyro: a prior or a likelihood of its models.

pip install numpyro
"""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_examples, check_instance
from sgm.likelihood.log_prob import log_prob
from sgm.likelihood.trace import AbstractTrace, Exact
from sgm.model.base import AbstractModel, check_process_and_model
from sgm.nn.condition import Condition, check_density
from sgm.sample import sample
from sgm.sde.base import AbstractSDE
from sgm.solve.method import AbstractMethod
from sgm.solve.probability_flow import ProbabilityFlow

try:
    from numpyro.distributions import Distribution, constraints
except ImportError as error:
    raise ImportError("sgm.interop.numpyro: NumPyro is not installed; pip install numpyro.") from error

_FIELDS = ("sde", "model", "cond", "trace", "solver", "controller", "adjoint", "method", "key")


class Density(Distribution):
    """The density of a model, whose `log_prob` is `sgm.log_prob` and whose `sample` is `sgm.sample`.

    Its events are of the shape of an example, of real numbers in the data's units. The batch axes of `cond` are its
    batch shape. NUTS takes it as it is: gradients go through the solve, backwards by default. With
    `NUTS(..., forward_mode_differentiation=True)` pass `adjoint=diffrax.ForwardMode()`, which is faster for few
    parameters.

    Arguments:
        sde: Process.
        model: Model.
        cond: Condition, which may have batch axes.
        trace: Trace estimator of log p.
        solver: Solver of log p.
        controller: Step size controller of log p, by default that of `sgm.log_prob`.
        adjoint: Way to differentiate log p, by default that of `sgm.log_prob`.
        method: Method of sampling: by default the probability flow, whose density log p is.
        key: Key of random probes of the trace, which are the same at each call.

    Raises:
        TypeError: for what is no process, model, condition, trace, solver, controller, adjoint or method.
        ValueError: for observed entries in `cond`, parts of it with different batch axes, and random probes without a
            key; by `log_prob`, for values of another shape than that of events, with batch axes in front.

    Example:
        >>> def model():
        ...     theta = numpyro.sample("theta", Density(sde, prior))
        ...     numpyro.sample("y", numpyro.distributions.Normal(theta, 0.3).to_event(1), obs=y)
    """

    def __init__(
        self,
        sde: AbstractSDE,
        model: AbstractModel,
        cond: Condition | None = None,
        *,
        trace: AbstractTrace = Exact(),
        solver: diffrax.AbstractERK = diffrax.Dopri5(),
        controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
        adjoint: diffrax.AbstractAdjoint | None = None,
        method: AbstractMethod = ProbabilityFlow(),
        key: PRNGKeyArray | None = None,
    ):
        check_process_and_model("Density", sde, model)
        check_instance("Density", "cond", cond, Condition | None, "sgm.Condition(params=observed)")
        check_instance("Density", "trace", trace, AbstractTrace, "sgm.Exact()")
        check_instance("Density", "solver", solver, diffrax.AbstractERK, "diffrax.Dopri5()")
        kind = diffrax.AbstractAdaptiveStepSizeController | None
        check_instance("Density", "controller", controller, kind, "diffrax.PIDController(rtol=1e-5, atol=1e-5)")
        check_instance("Density", "adjoint", adjoint, diffrax.AbstractAdjoint | None, "diffrax.ForwardMode()")
        check_instance("Density", "method", method, AbstractMethod, "sgm.ProbabilityFlow()")
        check_density("Density", cond)
        trace.check(key, model.shape)
        if model.conditioning is not None:
            model.conditioning.check("Density", cond)
        axes = {()} if cond is None else cond.batch_axes(model.conditioning)
        if len(axes) > 1:
            raise ValueError(f"Density: the parts of cond have batch axes {sorted(axes)}; give every part the same.")
        self.sde, self.model, self.cond, self.trace, self.solver = sde, model, cond, trace, solver
        self.controller, self.adjoint, self.method, self.key = controller, adjoint, method, key
        super().__init__(next(iter(axes), ()), model.shape)

    @property
    def support(self) -> Any:  # type: ignore[reportIncompatibleVariableOverride]
        """Real numbers, of the shape of an example."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Draws of shape (*sample_shape, *batch_shape, *event_shape)."""
        batch = (*sample_shape, *self.batch_shape)
        options = {"cond": self._cond(batch, flat=True), "method": self.method}
        return sample(self.sde, self.model, key, math.prod(batch), **options).reshape(*batch, *self.event_shape)

    def log_prob(self, value: Float[Array, "..."], intermediates: Any = None) -> Float[Array, "..."]:
        """log p(value) in nats, of the shape of value without that of an event."""
        value = jnp.asarray(value)
        batch = jnp.broadcast_shapes(check_examples("Density", value, self.event_shape), self.batch_shape)
        return log_prob(
            self.sde,
            self.model,
            jnp.broadcast_to(value, (*batch, *self.event_shape)),
            self.key,
            cond=self._cond(batch),
            trace=self.trace,
            solver=self.solver,
            controller=self.controller,
            adjoint=self.adjoint,
        )

    def tree_flatten(self) -> Any:
        """The arrays, and all else, which may be functions and other things that `jax.jit` takes for constants."""
        arrays, rest = eqx.partition({name: getattr(self, name) for name in _FIELDS}, eqx.is_array)
        leaves, structure = jax.tree.flatten(rest)
        return (arrays,), (tuple(leaves), structure, self.batch_shape, self.event_shape)

    @classmethod
    def tree_unflatten(cls, aux_data: Any, params: Any) -> "Density":
        """The density of what `tree_flatten` gives."""
        leaves, structure, batch_shape, event_shape = aux_data
        density = cls.__new__(cls)
        for name, value in eqx.combine(params[0], jax.tree.unflatten(structure, leaves)).items():
            setattr(density, name, value)
        Distribution.__init__(density, batch_shape, event_shape)
        return density

    def _cond(self, batch, flat=False):
        """The condition of each example of a batch, whose axes are one if it is to be flat."""
        own = len(self.batch_shape)
        if not own:
            return self.cond

        def spread(part):
            whole = jnp.broadcast_to(part, (*batch, *part.shape[own:]))
            return whole.reshape(-1, *part.shape[own:]) if flat else whole

        return jax.tree.map(spread, self.cond)
