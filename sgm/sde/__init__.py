"""Noising processes: what noise does to data."""

from sgm.sde.base import AbstractSDE as AbstractSDE
from sgm.sde.base import Prior as Prior
from sgm.sde.betas import AbstractBetas as AbstractBetas
from sgm.sde.betas import CosineBetas as CosineBetas
from sgm.sde.betas import LinearBetas as LinearBetas
from sgm.sde.betas import SigmoidBetas as SigmoidBetas
from sgm.sde.betas import SohlDicksteinBetas as SohlDicksteinBetas
from sgm.sde.betas import TableBetas as TableBetas
from sgm.sde.betas import cosine_betas as cosine_betas
from sgm.sde.betas import linear_betas as linear_betas
from sgm.sde.betas import sigmoid_betas as sigmoid_betas
from sgm.sde.betas import sohl_dickstein_betas as sohl_dickstein_betas
from sgm.sde.chain import DiscreteChain as DiscreteChain
from sgm.sde.learned import LearnedLogSNR as LearnedLogSNR
from sgm.sde.level import cos_of as cos_of
from sgm.sde.level import sin_of as sin_of
from sgm.sde.level import theta_of as theta_of
from sgm.sde.rectified import Rectified as Rectified
from sgm.sde.schedules import AbstractSchedule as AbstractSchedule
from sgm.sde.schedules import Cosine as Cosine
from sgm.sde.schedules import Linear as Linear
from sgm.sde.schedules import PiecewiseConstant as PiecewiseConstant
from sgm.sde.sub_vp import SubVP as SubVP
from sgm.sde.ve import VE as VE
from sgm.sde.vp import VP as VP
from sgm.sde.vp import AbstractVP as AbstractVP
