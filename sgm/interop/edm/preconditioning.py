"""The preconditionings of EDM, as processes, predictions and timesteps, by the fields of their classes there.

All have Heun's method as their sampler, as EDM has for all: 18 steps, the last of which is the denoised end.
"""

from sgm.interop.edm.timesteps import LogVETimesteps, VPTimesteps
from sgm.interop.timestep.fields import Fields
from sgm.interop.timestep.scheduled import Scheduler
from sgm.interop.timestep.timesteps import ChainTimesteps, EDMTimesteps
from sgm.model.prediction import Karras, Noise, WithVariance
from sgm.sde.betas import CosineBetas
from sgm.sde.chain import DiscreteChain
from sgm.sde.schedules import Linear
from sgm.sde.ve import VE
from sgm.sde.vp import VP
from sgm.solve.edm_heun import EDMHeun

_STEPS = 17


def read_edm(fields: Fields) -> Scheduler:
    """EDMPrecond, whose process is that of EDM's sampler."""
    sigma_data = fields.number("sigma_data", 0.5)
    _check_positive(fields, sigma_data=sigma_data)
    return Scheduler(VE(*_sigmas(fields, 0.002, 80.0)), Karras(sigma_data), EDMTimesteps(), EDMHeun(_STEPS))


def read_vp(fields: Fields) -> Scheduler:
    """VPPrecond: the noise, under the process of score_sde's DDPM++."""
    lowest, slope = fields.number("beta_min", 0.1), fields.number("beta_d", 19.9)
    first, steps = fields.number("epsilon_t", 1e-5), fields.count("M", 1000, least=2)
    _check_positive(fields, beta_min=lowest, beta_d=slope)
    if not 0 < first < 1:
        fields.refuse("epsilon_t", "it must lie between 0 and 1")
    sde = VP(schedule=Linear(lowest, lowest + slope), t0=first)
    return Scheduler(sde, Noise(), VPTimesteps(sde, steps), EDMHeun(_STEPS))


def read_ve(fields: Fields) -> Scheduler:
    """VEPrecond: minus the noise, under the process of score_sde's NCSN++."""
    return Scheduler(VE(*_sigmas(fields, 0.02, 100.0)), Noise(), LogVETimesteps(), EDMHeun(_STEPS))


def read_iddpm(fields: Fields) -> Scheduler:
    """iDDPMPrecond: the noise and a learned variance, under a chain of cosine betas.

    Its timesteps are whole at the levels of the chain. Between them EDM takes the nearest, and here they lie between.
    """
    least, offset = fields.number("C_1", 0.001), fields.number("C_2", 0.008)
    steps = fields.count("M", 1000, least=2)
    _check_positive(fields, C_1=least, C_2=offset)
    if not least < 1:
        fields.refuse("C_1", "it must lie between 0 and 1")
    chain = DiscreteChain(CosineBetas(steps, offset, 1 - least))
    return Scheduler(chain, WithVariance(Noise()), ChainTimesteps(chain), EDMHeun(_STEPS))


READERS = {"EDMPrecond": read_edm, "VPPrecond": read_vp, "VEPrecond": read_ve, "iDDPMPrecond": read_iddpm}
"""The preconditionings by the names of their classes."""


def _sigmas(fields, lowest, highest):
    low, high = fields.number("sigma_min", lowest), fields.number("sigma_max", highest)
    if not 0 < low < high:
        fields.refuse("sigma_min", f"it must lie between 0 and sigma_max = {high:g}")
    return low, high


def _check_positive(fields, **numbers):
    for name, value in numbers.items():
        if not value > 0:
            fields.refuse(name, "it must be above 0")
