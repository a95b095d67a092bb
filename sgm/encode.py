"""From examples to latents and back, by the probability flow."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from sgm.checks import check_examples, check_finished, check_finite, check_instance, trace_floats
from sgm.likelihood.prepare import prepare
from sgm.model.base import AbstractModel, check_process_and_model
from sgm.nn.condition import Condition, flat_condition
from sgm.parallel.devices import replicate
from sgm.parallel.spread import spread
from sgm.sample import sample
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL
from sgm.solve.controllers import NoiseController
from sgm.solve.method import FIRST_STEP, MAX_ADAPTIVE_STEPS
from sgm.solve.probability_flow import ProbabilityFlow
from sgm.solve.terms import UniversalFlow

CONTROLLER = diffrax.PIDController(rtol=1e-7, atol=1e-6)


def encode(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    *,
    cond: Condition | None = None,
    solver: diffrax.AbstractERK = diffrax.Tsit5(),
    controller: diffrax.AbstractAdaptiveStepSizeController = CONTROLLER,
    adjoint: diffrax.AbstractAdjoint | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "..."]:
    """Lead examples along the probability flow to latents.

    Arguments:
        sde: Process.
        model: Model.
        x: Examples at t0, in the data's units, of shape `(*batch, *model.shape)`.
        cond: One condition for all examples, or one each.
        solver: Explicit Runge-Kutta method of Diffrax.
        controller: Adaptive step size controller. Its `atol` is a share of the noise of the level, as in
            `ProbabilityFlow`.
        adjoint: Way to differentiate the latents, by default `diffrax.RecursiveCheckpointAdjoint()`.
        mesh: Devices over which a batch is spread, as in `sgm.log_prob`.

    Returns:
        x at t1, the latents, of the shape of `x`, in the process's own coordinates: draws of `sde.prior`, if the model
        is exact.

    Raises:
        TypeError: for arguments of other types.
        ValueError: for entries of x that are not finite, and examples or a condition of other shapes than the model's.
        RuntimeError: where a solve does not finish; inside `jax.jit` its entries are nan instead.

    Example:
        >>> latent = sgm.encode(sgm.VP(), model, x)
        >>> again = sgm.decode(sgm.VP(), model, latent)

    Reference: Song et al. 2021 (arXiv:2011.13456, section 4.3).
    """
    check_instance("encode", "solver", solver, diffrax.AbstractERK, "diffrax.Tsit5()")
    kind = diffrax.AbstractAdaptiveStepSizeController
    check_instance("encode", "controller", controller, kind, "diffrax.PIDController(rtol=1e-7, atol=1e-6)")
    sde, model, x, _, own, cond, mesh, batch = prepare("encode", sde, model, x, None, cond, mesh)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    controller = replicate(trace_floats(controller), mesh)
    latent, finished = _encode((sde, model, cond, controller), (x, own), solver, adjoint, mesh)
    check_finished("encode", finished, MAX_ADAPTIVE_STEPS)
    return latent.reshape(*batch, *model.shape)


def decode(
    sde: AbstractSDE,
    model: AbstractModel,
    latent: Float[Array | np.ndarray, "..."],
    *,
    cond: Condition | None = None,
    solver: diffrax.AbstractERK = diffrax.Tsit5(),
    controller: diffrax.AbstractAdaptiveStepSizeController = CONTROLLER,
    adjoint: diffrax.AbstractAdjoint | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "..."]:
    """Lead latents along the probability flow back to examples: the inverse of `encode`.

    Arguments:
        sde: Process.
        model: Model.
        latent: x at t1, in the process's own coordinates, of shape `(*batch, *model.shape)`.
        cond: One condition for all latents, or one each.
        solver: Explicit Runge-Kutta method of Diffrax.
        controller: Adaptive step size controller, as that of `encode`.
        adjoint: Way to differentiate the examples, by default `diffrax.RecursiveCheckpointAdjoint()`.
        mesh: Devices over which a batch is spread, as in `sgm.sample`.

    Returns:
        x at t0, in the data's units, not denoised.

    Raises:
        ValueError: for entries that are not finite, and latents or a condition of other shapes than the model's.
        RuntimeError: where a solve does not finish; inside `jax.jit` its entries are nan instead.

    Example:
        >>> x = sgm.decode(sgm.VP(), model, sgm.VP().prior.sample(jax.random.key(0), (64, *model.shape)))

    Reference: Song et al. 2021 (arXiv:2011.13456, section 4.3).
    """
    check_process_and_model("decode", sde, model)
    batch = check_examples("decode: latent", latent, model.shape)
    check_finite("decode", latent, "latent")
    cond, _ = flat_condition("decode", model, cond, batch)
    # The flow draws nothing, so any key will do.
    x = sample(
        sde,
        model,
        jr.key(0),
        cond=cond,
        method=ProbabilityFlow(solver, controller),
        saveat=diffrax.SaveAt(t0=True),
        adjoint=adjoint,
        mesh=mesh,
        x1=latent.reshape(-1, *model.shape) if batch else latent,
    )
    return x.reshape(*batch, *model.shape)


@eqx.filter_jit
def _encode(shared, each, solver, adjoint, mesh):
    def of_batch(shared, each):
        sde, model, cond, controller = shared

        def of_one(each):
            x, own = each
            flow = UniversalFlow(sde, *own.join(model, cond), to_data=False)
            levels = jnp.stack([sde.level(sde.t0), jnp.minimum(sde.level(sde.t1), LARGEST_LEVEL)])
            start, end = (jnp.asarray(clock, x.dtype) for clock in flow.clock(levels))
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(flow.drift),
                solver,
                start,
                end,
                None,
                x / jnp.asarray(sde.rho(sde.t0), x.dtype),
                stepsize_controller=NoiseController(controller, flow, FIRST_STEP * (end - start)),
                adjoint=adjoint,
                max_steps=MAX_ADAPTIVE_STEPS,
                throw=False,
            )
            assert solution.ys is not None  # Both ends are saved by default.
            finished = diffrax.is_successful(solution.result)
            latent = solution.ys[-1] * jnp.asarray(sde.rho(sde.t1), x.dtype)
            return jnp.where(finished, latent, jnp.nan), finished

        # Adaptive steps need the digits that TF32 matrix products would take.
        with jax.default_matmul_precision("highest"):
            return jax.vmap(of_one)(each)

    return spread(of_batch, shared, each, mesh)
