"""The preconditionings of EDM, as processes, predictions and timesteps, by the fields of their classes there.

All have the sampler that EDM's `generate.py` has for all: Heun's method of 18 steps without churn, the last of which is
the denoised end, at the levels of `EDMGrid`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from sgm.checks import check_concrete
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
from sgm.solve.grid import AbstractGrid, KarrasGrid


class EDMGrid(AbstractGrid):
    """The steps of `KarrasGrid` between 80 and 0.002 in sigma/alpha, as far as the process goes there.

    They end where EDM's sampler does, which keeps within these two whatever levels a network was trained on.

    Reference: Karras et al. 2022 (arXiv:2206.00364, eq. 5 and algorithm 1; table 1, "EDM"), and its published
    `edm_sampler`: sigma_min = 0.002, sigma_max = 80, rho = 7, both raised or lowered to those of the network.
    """

    def levels(self, sde, steps):
        return KarrasGrid(_RHO).levels(self.process(sde, steps), steps)

    def process(self, sde, steps):
        check_concrete("EDMGrid", process=sde)
        with jax.ensure_compile_time_eval():
            low, high = (float(sde.time(jnp.log(ratio))) for ratio in _ENDS)
        ends = max(float(sde.t0), low), min(float(sde.t1), high)
        if ends == (sde.t0, sde.t1):
            return sde
        return eqx.tree_at(lambda sde: (sde.t0, sde.t1), sde, ends)


_ENDS, _RHO = (0.002, 80.0), 7.0
_SAMPLER = EDMHeun(17, grid=EDMGrid())


def read_edm(fields: Fields) -> Scheduler:
    """EDMPrecond, whose process is that of EDM's sampler."""
    sigma_data = fields.positive("sigma_data", 0.5)
    return Scheduler(VE(*fields.sigmas(*_ENDS)), Karras(sigma_data), EDMTimesteps(), _SAMPLER)


def read_vp(fields: Fields) -> Scheduler:
    """VPPrecond: the noise, under the process of score_sde's DDPM++."""
    lowest, slope = fields.positive("beta_min", 0.1), fields.positive("beta_d", 19.9)
    first, steps = fields.number("epsilon_t", 1e-5), fields.count("M", 1000, least=2)
    if not 0 < first < 1:
        fields.refuse("epsilon_t", "it must lie between 0 and 1")
    sde = VP(schedule=Linear(lowest, lowest + slope), t0=first)
    return Scheduler(sde, Noise(), VPTimesteps(sde, steps), _SAMPLER)


def read_ve(fields: Fields) -> Scheduler:
    """VEPrecond: minus the noise, under the process of score_sde's NCSN++."""
    return Scheduler(VE(*fields.sigmas(0.02, 100.0)), Noise(), LogVETimesteps(), _SAMPLER)


def read_iddpm(fields: Fields) -> Scheduler:
    """iDDPMPrecond: the noise and a learned variance, under a chain of cosine betas.

    Its timesteps are whole at the levels of the chain. Between them EDM takes the nearest, and here they lie between.
    """
    least, offset = fields.positive("C_1", 0.001), fields.positive("C_2", 0.008)
    steps = fields.count("M", 1000, least=2)
    if not least < 1:
        fields.refuse("C_1", "it must lie between 0 and 1")
    chain = DiscreteChain(CosineBetas(steps, offset, 1 - least))
    return Scheduler(chain, WithVariance(Noise()), ChainTimesteps(chain), _SAMPLER)


READERS = {"EDMPrecond": read_edm, "VPPrecond": read_vp, "VEPrecond": read_ve, "iDDPMPrecond": read_iddpm}
"""The preconditionings by the names of their classes."""
