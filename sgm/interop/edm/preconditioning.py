"""Readers of EDM's preconditionings: each makes a process, a prediction and timesteps of the fields of its class.

All have one sampler, that of EDM's `generate.py`: Heun's method without churn at the levels of `EDMGrid`. EDM counts 18
steps, of which the last leads to the denoised estimate; here these are 17 steps and the denoised end.
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
    """The steps of `KarrasGrid` from sigma/alpha = 80 to 0.002, but within the ends of the process.

    EDM's sampler keeps within these two levels, whatever levels the network was trained on.

    Reference: Karras et al. 2022 (arXiv:2206.00364, eq. 5 and algorithm 1; table 1, "EDM"), and the published
    `edm_sampler`: sigma_min = 0.002 or that of the network, sigma_max = 80 or that of the network, rho = 7.
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
    """EDMPrecond: EDM's own prediction, under a variance-exploding process between the levels of EDM's sampler."""
    sigma_data = fields.positive("sigma_data", 0.5)
    return Scheduler(VE(*fields.sigmas(*_ENDS)), Karras(sigma_data), EDMTimesteps(), _SAMPLER)


def read_vp(fields: Fields) -> Scheduler:
    """VPPrecond: the network predicts the noise, under the process of score_sde's DDPM++."""
    lowest, slope = fields.positive("beta_min", 0.1), fields.positive("beta_d", 19.9)
    first, steps = fields.number("epsilon_t", 1e-5), fields.count("M", 1000, least=2)
    if not 0 < first < 1:
        fields.refuse("epsilon_t", "it must lie between 0 and 1")
    sde = VP(schedule=Linear(lowest, lowest + slope), t0=first)
    return Scheduler(sde, Noise(), VPTimesteps(sde, steps), _SAMPLER)


def read_ve(fields: Fields) -> Scheduler:
    """VEPrecond: the network predicts minus the noise, under the process of score_sde's NCSN++."""
    return Scheduler(VE(*fields.sigmas(0.02, 100.0)), Noise(), LogVETimesteps(), _SAMPLER)


def read_iddpm(fields: Fields) -> Scheduler:
    """iDDPMPrecond: the network predicts the noise and a variance, under a chain of cosine betas.

    The timestep of a level of the chain is a whole number. For a level between two of them, EDM takes the nearer whole
    number, and the timestep here lies between the two.
    """
    least, offset = fields.positive("C_1", 0.001), fields.positive("C_2", 0.008)
    steps = fields.count("M", 1000, least=2)
    if not least < 1:
        fields.refuse("C_1", "it must lie between 0 and 1")
    chain = DiscreteChain(CosineBetas(steps, offset, 1 - least))
    return Scheduler(chain, WithVariance(Noise()), ChainTimesteps(chain), _SAMPLER)


READERS = {"EDMPrecond": read_edm, "VPPrecond": read_vp, "VEPrecond": read_ve, "iDDPMPrecond": read_iddpm}
"""The readers, by the names of the classes."""
