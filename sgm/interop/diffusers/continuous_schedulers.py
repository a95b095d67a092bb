"""Schedulers of processes in continuous time: EDM, rectified flow and score_sde's variance-exploding one."""

from sgm.interop.diffusers.chain_fields import read_end, read_thresholding
from sgm.interop.timestep.fields import Fields
from sgm.interop.timestep.scheduled import Scheduler
from sgm.interop.timestep.timesteps import EDMTimesteps, FlowTimesteps, VETimesteps
from sgm.model.kernel import FixedLarge
from sgm.model.prediction import Flow, Karras, Score
from sgm.sde.rectified import Rectified
from sgm.sde.ve import VE
from sgm.solve.ddim import DDIM
from sgm.solve.dpm_solver import DPMSolverPP, SDEDPMSolverPP
from sgm.solve.edm_heun import EDMHeun
from sgm.solve.grid import AbstractGrid, KarrasGrid, LogSNRGrid, ShiftedGrid
from sgm.solve.predictor_corrector import PredictorCorrector


def read_edm_euler(fields: Fields) -> Scheduler:
    """EDMEulerScheduler, which is DDIM."""
    return _edm(fields, lambda grid: DDIM(49, grid=grid))


def read_edm_multistep(fields: Fields) -> Scheduler:
    """EDMDPMSolverMultistepScheduler."""
    order = fields.count("solver_order", 2)
    if order > 3:
        fields.refuse("solver_order", "it must be 3 or less")
    if fields.choice("solver_type", "midpoint", ("midpoint", "heun", "logrho", "bh1", "bh2")) == "heun":
        fields.say("steps of order 2 are those of solver_type: midpoint, which have the same limit")
    if order == 3:
        fields.say("steps of order 3 have the curvature of the expansion, which is twice that of diffusers")
    algorithm = fields.choice("algorithm_type", "dpmsolver++", ("dpmsolver++", "sde-dpmsolver++", "deis"))
    solver = SDEDPMSolverPP if algorithm == "sde-dpmsolver++" else DPMSolverPP
    return _edm(fields, lambda grid: solver(19, order, grid), read_thresholding(fields))


def _edm(fields, sampler, clipping=None):
    low, high = fields.number("sigma_min", 0.002), fields.number("sigma_max", 80.0)
    if not 0 < low < high:
        fields.refuse("sigma_min", f"it must lie between 0 and sigma_max = {high:g}")
    rho, sigma_data = fields.number("rho", 7.0), fields.number("sigma_data", 0.5)
    for name, value in {"rho": rho, "sigma_data": sigma_data}.items():
        if not value > 0:
            fields.refuse(name, "it must be above 0")
    schedule = fields.choice("sigma_schedule", "karras", ("karras", "exponential"))
    negated = fields.choice("prediction_type", "epsilon", ("epsilon", "v_prediction")) == "v_prediction"
    read_end(fields)
    grid: AbstractGrid = KarrasGrid(rho) if schedule == "karras" else LogSNRGrid()
    return Scheduler(VE(low, high), Karras(sigma_data), EDMTimesteps(negated), sampler(grid), clipping)


def read_flow_euler(fields: Fields) -> Scheduler:
    """FlowMatchEulerDiscreteScheduler, which is DDIM: both are exact for a constant x0 and noise."""
    dynamic = "the shift follows from the size of the image there; set it to false, and shift to the exponential of mu"
    fields.absent("use_dynamic_shifting", (None, False), dynamic)
    fields.absent("stochastic_sampling", (None, False), "each step draws all noise afresh there, which no sampler does")
    fields.absent("invert_sigmas", (None, False), "time runs the other way there; it must be false")
    for name in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        if fields.flag(name):
            fields.say(f"the steps are even in the shifted time, without {name}")
    if fields.maybe_number("shift_terminal") is not None:
        fields.say("the steps are not stretched to shift_terminal")
    return _flow(fields, lambda grid: DDIM(49, grid=grid))


def read_flow_heun(fields: Fields) -> Scheduler:
    """FlowMatchHeunDiscreteScheduler: Heun's method in another time, which has the same limit."""
    fields.say("EDMHeun stands in, which is Heun's method in sigma/alpha, and has the same limit")
    return _flow(fields, lambda grid: EDMHeun(24, grid=grid))


def _flow(fields, sampler):
    count, shift = fields.count("num_train_timesteps", 1000, least=2), fields.number("shift", 1.0)
    if not shift > 0:
        fields.refuse("shift", "it must be above 0")
    # The last time of diffusers' steps, which are shifted once as they are built and again as they are spaced.
    last = 1 / count
    for _ in range(2):
        last = shift * last / (1 + (shift - 1) * last)
    return Scheduler(Rectified(last, 1.0), Flow(), FlowTimesteps(count), sampler(ShiftedGrid(shift)))


def read_ve(fields: Fields) -> Scheduler:
    """ScoreSdeVeScheduler: predictor and corrector, in the other order and with a fixed size of the corrector."""
    steps, snr = fields.count("num_train_timesteps", 2000, least=2), fields.number("snr", 0.15)
    corrections, first = fields.count("correct_steps", 1, least=0), fields.number("sampling_eps", 1e-5)
    low, high = fields.number("sigma_min", 0.01), fields.number("sigma_max", 1348.0)
    if not 0 < low < high:
        fields.refuse("sigma_min", f"it must lie between 0 and sigma_max = {high:g}")
    if not 0 < snr < 1:
        fields.refuse("snr", "it must lie between 0 and 1")
    if not 0 <= first < 1:
        fields.refuse("sampling_eps", "it must lie between 0 and 1")
    fields.say("the corrector has the size of steps that its norms have on average, and follows the predictor")
    sampler = PredictorCorrector(steps - 1, corrections, snr, FixedLarge())
    return Scheduler(VE(low, high, first), Score(), VETimesteps(), sampler)
