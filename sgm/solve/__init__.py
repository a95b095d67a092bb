"""Solves from noise to data: equations, grids, Brownian paths and the methods made of them."""

from sgm.solve.ancestral import Ancestral as Ancestral
from sgm.solve.brownian import GridBrownianPath as GridBrownianPath
from sgm.solve.chain_grid import AbstractChainGrid as AbstractChainGrid
from sgm.solve.chain_grid import ChainGrid as ChainGrid
from sgm.solve.chain_grid import LeadingGrid as LeadingGrid
from sgm.solve.chain_grid import TrailingGrid as TrailingGrid
from sgm.solve.chain_grid import WithinGrid as WithinGrid
from sgm.solve.ddim import DDIM as DDIM
from sgm.solve.dpm_solver import DPMSolverPP as DPMSolverPP
from sgm.solve.dpm_solver import SDEDPMSolverPP as SDEDPMSolverPP
from sgm.solve.dpm_solver_single import SingleDPMSolverPP as SingleDPMSolverPP
from sgm.solve.edm_heun import EDMHeun as EDMHeun
from sgm.solve.euler_maruyama import EulerMaruyama as EulerMaruyama
from sgm.solve.grid import AbstractGrid as AbstractGrid
from sgm.solve.grid import FixedSteps as FixedSteps
from sgm.solve.grid import KarrasGrid as KarrasGrid
from sgm.solve.grid import LogSNRGrid as LogSNRGrid
from sgm.solve.grid import QuadraticGrid as QuadraticGrid
from sgm.solve.grid import ShiftedGrid as ShiftedGrid
from sgm.solve.grid import ThetaGrid as ThetaGrid
from sgm.solve.grid import UniformGrid as UniformGrid
from sgm.solve.method import AbstractMethod as AbstractMethod
from sgm.solve.predictor_corrector import PredictorCorrector as PredictorCorrector
from sgm.solve.probability_flow import ProbabilityFlow as ProbabilityFlow
from sgm.solve.reverse_sde import ReverseSDE as ReverseSDE
from sgm.solve.sampler import AbstractSampler as AbstractSampler
