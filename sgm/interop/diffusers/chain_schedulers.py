"""Schedulers of a discrete chain, as processes and samplers.

Where a solver of diffusers is not among ours, one of the same limit stands in for it, with a warning. Only the steps of
a sampler are ever stood in for: a field that would change the process, or what an output means, is an error.
"""

from sgm.interop.diffusers.chain_fields import (
    AT_LEVEL,
    SIGMAS,
    SOLVER_TYPES,
    last_step,
    read_chain,
    read_clipping,
    read_end,
    read_multistep_order,
    read_order,
    read_prediction,
    read_sigmas,
    read_spacing,
    read_thresholding,
    refuse_dynamic_shift,
    say_even,
    within,
)
from sgm.interop.timestep.fields import Fields
from sgm.interop.timestep.scheduled import Scheduler
from sgm.interop.timestep.timesteps import AbstractTimesteps, ChainTimesteps, EDMTimesteps, FlowTimesteps
from sgm.model.kernel import AbstractVariance, FixedLarge, FixedSmall, Given, Interpolated
from sgm.model.prediction import Flow, WithVariance
from sgm.sde.base import AbstractSDE
from sgm.sde.rectified import Rectified
from sgm.sde.ve import VE
from sgm.solve.ancestral import Ancestral
from sgm.solve.chain_grid import ChainGrid
from sgm.solve.ddim import DDIM
from sgm.solve.dpm_solver import DPMSolverPP, SDEDPMSolverPP
from sgm.solve.dpm_solver_single import SingleDPMSolverPP
from sgm.solve.edm_heun import EDMHeun
from sgm.solve.grid import ShiftedGrid
from sgm.solve.sampler import AbstractSampler

_VARIANCES: dict[str | None, AbstractVariance] = {
    "fixed_small": FixedSmall(),
    "fixed_small_log": FixedSmall(),
    "fixed_large": FixedLarge(),
    "learned": Given(),
    "learned_range": Interpolated(),
}


def read_ddpm(fields: Fields) -> Scheduler:
    """DDPMScheduler: the ancestral sampler, by default of all steps of the chain.

    The last step adds no noise. That of diffusers does so where fewer steps do not end at k = 1, of large variance.
    """
    chain = read_chain(fields)
    prediction = read_prediction(fields, chain)
    if fields.config.get("variance_type") == "fixed_large_log":
        fields.refuse("variance_type", "diffusers takes the root of a negative number there; it must be fixed_large")
    variance = _VARIANCES[fields.choice("variance_type", "fixed_small", tuple(_VARIANCES))]
    prediction = WithVariance(prediction) if variance.learned else prediction
    grid = read_spacing(fields, "leading")
    sampler = Ancestral(last_step(chain, chain.steps, grid), variance, grid)
    return Scheduler(chain, prediction, ChainTimesteps(chain), sampler, read_clipping(fields))


def read_ddim(fields: Fields) -> Scheduler:
    """DDIMScheduler, of eta = 0."""
    chain = read_chain(fields)
    prediction, grid = read_prediction(fields, chain), read_spacing(fields, "leading")
    if isinstance(grid, ChainGrid):
        fields.say("each step leads to where the next begins; those of diffusers' linspace lead elsewhere")
    _read_alpha(fields, True)
    clipping = read_clipping(fields, moves_noise=False)
    sampler = DDIM(last_step(chain, 50, grid), grid=grid)
    return Scheduler(chain, prediction, ChainTimesteps(chain), sampler, clipping)


def read_pndm(fields: Fields) -> Scheduler:
    """PNDMScheduler, for which DPM-Solver++ of order 2 stands in."""
    chain = read_chain(fields, rescales=False)
    prediction, grid = read_prediction(fields, chain), read_spacing(fields, "leading")
    _read_alpha(fields, False)
    fields.say("the solver PNDM is not here; DPMSolverPP stands in, which has the same limit")
    sampler = DPMSolverPP(last_step(chain, 50, grid), grid=grid)
    return Scheduler(chain, prediction, ChainTimesteps(chain), sampler)


def read_multistep(fields: Fields) -> Scheduler:
    """DPMSolverMultistepScheduler."""
    algorithm = fields.choice(
        "algorithm_type", "dpmsolver++", ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis")
    )
    order = read_multistep_order(fields)
    if algorithm in ("dpmsolver", "sde-dpmsolver"):
        fields.say(f"{algorithm} is not here; {algorithm}++ stands in, which has the same limit")
    _read_lambda(fields)
    solver = SDEDPMSolverPP if str(algorithm).startswith("sde") else DPMSolverPP
    return _solved(fields, lambda steps, grid: solver(steps, order, grid), lu=True, learns=True)


def read_singlestep(fields: Fields) -> Scheduler:
    """DPMSolverSinglestepScheduler, whose inner evaluations lie on the grid, where ours lie evenly in the level."""
    order = read_order(fields)
    fields.choice("algorithm_type", "dpmsolver++", ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "deis"))
    fields.choice("solver_type", "midpoint", SOLVER_TYPES)
    fields.say("SingleDPMSolverPP stands in, whose inner evaluations lie elsewhere, and which has the same limit")
    _read_lambda(fields)
    return _solved(
        fields,
        lambda steps, grid: SingleDPMSolverPP(max(1, steps // order), order, grid),
        spaces=False,
        rescales=False,
        learns=True,
        steps_in_one=order,
    )


def read_unipc(fields: Fields) -> Scheduler:
    """UniPCMultistepScheduler, for which DPM-Solver++ stands in."""
    order = read_order(fields, 9)
    fields.say("the solver UniPC is not here; DPMSolverPP stands in, which has the same limit")
    for name in ("sigma_min", "sigma_max", "shift_terminal"):
        if fields.maybe_number(name) is not None:
            fields.say(f"the steps go along the whole process, without {name}")
    return _solved(fields, lambda steps, grid: DPMSolverPP(steps, min(order, 3), grid))


def read_deis(fields: Fields) -> Scheduler:
    """DEISMultistepScheduler, for which DPM-Solver++ stands in."""
    order = read_order(fields)
    fields.choice("algorithm_type", "deis", ("deis", "dpmsolver", "dpmsolver++"))
    fields.say("the solver DEIS is not here; DPMSolverPP stands in, which has the same limit")
    return _solved(fields, lambda steps, grid: DPMSolverPP(steps, order, grid), rescales=False, to_level=True)


def read_euler(fields: Fields) -> Scheduler:
    """EulerDiscreteScheduler, which is DDIM."""
    chain = read_chain(fields, pure=False)
    prediction = read_prediction(fields, chain)
    spacing = read_spacing(fields, "linspace", whole=False)
    if fields.choice("interpolation_type", "linear", ("linear", "log_linear")) == "log_linear":
        fields.say("each level goes with its own timestep; those of diffusers' log_linear do not")
    inner = read_sigmas(fields, chain)
    grid = within(spacing, inner)
    read_end(fields)
    ends = fields.maybe_number("sigma_min"), fields.maybe_number("sigma_max")
    sde: AbstractSDE = chain
    timesteps: AbstractTimesteps = ChainTimesteps(chain)
    # Of other predictions diffusers does not read it.
    continuous = fields.choice("timestep_type", "discrete", ("discrete", "continuous")) == "continuous"
    if continuous and fields.config.get("prediction_type") == "v_prediction":
        timesteps = EDMTimesteps()
    if inner is not None and ends != (None, None):
        low, high = ends
        if low is None or high is None or not 0 < low < high:
            fields.refuse("sigma_min", "both sigma_min and sigma_max must be given, 0 < sigma_min < sigma_max")
        sde, grid = VE(low, high), inner
    return Scheduler(sde, prediction, timesteps, DDIM(last_step(chain, 50, grid), grid=grid))


def read_euler_ancestral(fields: Fields) -> Scheduler:
    """EulerAncestralDiscreteScheduler, which is the ancestral sampler of small variance."""
    chain = read_chain(fields, pure=False)
    prediction, grid = read_prediction(fields, chain), read_spacing(fields, "linspace", whole=False)
    return Scheduler(chain, prediction, ChainTimesteps(chain), Ancestral(last_step(chain, 50, grid), grid=grid))


def read_heun(fields: Fields) -> Scheduler:
    """HeunDiscreteScheduler, which is EDM's without churn."""
    return _in_sigmas(fields, EDMHeun, read_clipping(fields, clips=False, thresholds=False))


def read_lms(fields: Fields) -> Scheduler:
    """LMSDiscreteScheduler, for which DPM-Solver++ of order 2 stands in."""
    fields.say("the solver LMS is not here; DPMSolverPP stands in, which has the same limit")
    return _in_sigmas(fields, DPMSolverPP, first=1e-4, last=0.02)


def read_kdpm2(fields: Fields) -> Scheduler:
    """KDPM2DiscreteScheduler, for which the singlestep DPM-Solver++ of order 2 stands in."""
    fields.say("the solver KDPM2 is not here; SingleDPMSolverPP stands in, which has the same limit")
    return _in_sigmas(fields, SingleDPMSolverPP, rounded=("use_karras_sigmas",))


def read_kdpm2_ancestral(fields: Fields) -> Scheduler:
    """KDPM2AncestralDiscreteScheduler, for which the stochastic DPM-Solver++ stands in."""
    fields.say("the solver KDPM2 is not here; SDEDPMSolverPP stands in, which has the same limit")
    return _in_sigmas(fields, SDEDPMSolverPP, rounded=("use_karras_sigmas",))


def read_dpm_sde(fields: Fields) -> Scheduler:
    """DPMSolverSDEScheduler, for which the stochastic DPM-Solver++ stands in."""
    fields.say("the solver is not here; SDEDPMSolverPP stands in, which has the same limit")
    return _in_sigmas(fields, SDEDPMSolverPP)


def _in_sigmas(fields, solver, clipping=None, *, first=8.5e-4, last=0.012, rounded=()):
    """A scheduler in the manner of k-diffusion, by a solver of so many steps on a grid."""
    chain = read_chain(fields, first=first, last=last, rescales=False)
    grid = within(read_spacing(fields, "linspace", whole=False), read_sigmas(fields, chain, rounded=rounded))
    sampler: AbstractSampler = solver(last_step(chain, 25, grid), grid=grid)
    return Scheduler(chain, read_prediction(fields, chain), ChainTimesteps(chain), sampler, clipping)


def _solved(fields, solver, *, spaces=True, rescales=True, lu=False, learns=False, to_level=False, steps_in_one=1):
    """A scheduler in the manner of DPM-Solver, by a solver of so many steps on a grid, of a chain or a flow."""
    refuse_dynamic_shift(fields, "flow_shift")
    shift = fields.positive("flow_shift", 1.0)
    is_flow = fields.config.get("prediction_type") == "flow_prediction"
    if fields.flag("use_flow_sigmas") != is_flow:
        fields.refuse("use_flow_sigmas", "it goes with prediction_type: flow_prediction, and only with that")
    variances = (None, *_VARIANCES, "fixed_large_log")
    learned = learns and str(fields.choice("variance_type", None, variances)).startswith("learned")
    clipping = read_thresholding(fields)
    chain = read_chain(fields, rescales=rescales, pure=False)
    if to_level:
        fields.say(AT_LEVEL.format("the lowest"))
    early = not to_level and read_end(fields)
    grid = read_spacing(fields, "linspace", early_end=early) if spaces else ChainGrid(early)
    sde: AbstractSDE = chain
    timesteps: AbstractTimesteps = ChainTimesteps(chain)
    if is_flow:
        fields.choice("prediction_type", "epsilon", ("flow_prediction",))
        fields.say("the last steps lie elsewhere than diffusers', by their number")
        say_even(fields, lu=lu)
        grid, prediction, timesteps = ShiftedGrid(shift), Flow(), FlowTimesteps(chain.steps)
        sde = Rectified(*(shift * t / (1 + (shift - 1) * t) for t in (1 / chain.steps, 1 - 1 / chain.steps)))
    else:
        grid = read_sigmas(fields, chain, lu=lu, rounded=SIGMAS) or grid
        prediction = read_prediction(fields, chain)
        prediction = WithVariance(prediction) if learned else prediction
    # The step that an early end leaves out, where it is not left out.
    sampler = solver(last_step(chain, 20 if early else 21, grid), grid)
    return Scheduler(sde, prediction, timesteps, sampler, clipping, steps_in_one, early)


def _read_lambda(fields):
    if fields.number("lambda_min_clipped", -float("inf")) > -float("inf"):
        fields.say("the steps begin at the chain's end, not where half the log-SNR is lambda_min_clipped")


def _read_alpha(fields, default):
    if not fields.flag("set_alpha_to_one", default):
        fields.say(AT_LEVEL.format("set_alpha_to_one: false"))
