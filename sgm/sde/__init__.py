"""Noising processes: what noise does to data."""

from sgm.sde.base import AbstractSDE as AbstractSDE
from sgm.sde.base import Prior as Prior
from sgm.sde.rectified import Rectified as Rectified
from sgm.sde.schedules import AbstractSchedule as AbstractSchedule
from sgm.sde.schedules import Cosine as Cosine
from sgm.sde.schedules import Linear as Linear
from sgm.sde.sub_vp import SubVP as SubVP
from sgm.sde.ve import VE as VE
from sgm.sde.vp import VP as VP
