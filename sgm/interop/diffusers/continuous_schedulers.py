"""Schedulers of processes in continuous time: EDM, rectified flow and score_sde's variance-exploding one."""

from sgm.interop.diffusers.chain_fields import (
    read_end,
    read_multistep_order,
    read_thresholding,
    refuse_dynamic_shift,
    say_even,
)
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
    order = read_multistep_order(fields)
    algorithm = fields.choice("algorithm_type", "dpmsolver++", ("dpmsolver++", "sde-dpmsolver++", "deis"))
    solver = SDEDPMSolverPP if algorithm == "sde-dpmsolver++" else DPMSolverPP
    return _edm(fields, lambda grid: solver(19, order, grid), read_thresholding(fields))


def _edm(fields, sampler, clipping=None):
    sde = VE(*fields.sigmas(0.002, 80.0))
    rho, sigma_data = fields.positive("rho", 7.0), fields.positive("sigma_data", 0.5)
    schedule = fields.choice("sigma_schedule", "karras", ("karras", "exponential"))
    negated = fields.choice("prediction_type", "epsilon", ("epsilon", "v_prediction")) == "v_prediction"
    read_end(fields)
    grid: AbstractGrid = KarrasGrid(rho) if schedule == "karras" else LogSNRGrid()
    return Scheduler(sde, Karras(sigma_data), EDMTimesteps(negated), sampler(grid), clipping)


def read_flow_euler(fields: Fields) -> Scheduler:
    """FlowMatchEulerDiscreteScheduler, which is DDIM: both are exact for a constant x0 and noise."""
    refuse_dynamic_shift(fields, "shift")
    fields.absent("stochastic_sampling", "each step draws all noise afresh there, which no sampler does")
    fields.absent("invert_sigmas", "time runs the other way there; it must be false")
    say_even(fields)
    if fields.maybe_number("shift_terminal") is not None:
        fields.say("the steps are not stretched to shift_terminal")
    return _flow(fields, lambda grid: DDIM(49, grid=grid))


def read_flow_heun(fields: Fields) -> Scheduler:
    """FlowMatchHeunDiscreteScheduler: Heun's method in another time, which has the same limit."""
    fields.say("EDMHeun stands in, which is Heun's method in sigma/alpha, and has the same limit")
    return _flow(fields, lambda grid: EDMHeun(24, grid=grid))


def _flow(fields, sampler):
    count, shift = fields.count("num_train_timesteps", 1000, least=2), fields.positive("shift", 1.0)
    # The last time of diffusers' steps, which are shifted once as they are built and again as they are spaced.
    last = 1 / count
    for _ in range(2):
        last = shift * last / (1 + (shift - 1) * last)
    return Scheduler(Rectified(last, 1.0), Flow(), FlowTimesteps(count), sampler(ShiftedGrid(shift)))


def read_ve(fields: Fields) -> Scheduler:
    """ScoreSdeVeScheduler: predictor and corrector, in the other order and with a fixed size of the corrector."""
    steps, snr = fields.count("num_train_timesteps", 2000, least=2), fields.number("snr", 0.15)
    corrections, first = fields.count("correct_steps", 1, least=0), fields.number("sampling_eps", 1e-5)
    low, high = fields.sigmas(0.01, 1348.0)
    if not 0 < snr < 1:
        fields.refuse("snr", "it must lie between 0 and 1")
    if not 0 <= first < 1:
        fields.refuse("sampling_eps", "it must lie between 0 and 1")
    fields.say("the corrector has the size of steps that its norms have on average, and follows the predictor")
    sampler = PredictorCorrector(steps - 1, corrections, snr, FixedLarge())
    return Scheduler(VE(low, high, first), Score(), VETimesteps(), sampler)
