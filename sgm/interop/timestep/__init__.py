"""Networks that read a timestep, as those of torch libraries do, and what makes them networks of the noise level."""

from sgm.interop.timestep.network import AbstractTimestepNetwork as AbstractTimestepNetwork
from sgm.interop.timestep.of_timesteps import OfTimesteps as OfTimesteps
from sgm.interop.timestep.scheduled import Scheduler as Scheduler
from sgm.interop.timestep.timesteps import AbstractTimesteps as AbstractTimesteps
from sgm.interop.timestep.timesteps import ChainTimesteps as ChainTimesteps
from sgm.interop.timestep.timesteps import EDMTimesteps as EDMTimesteps
from sgm.interop.timestep.timesteps import FlowTimesteps as FlowTimesteps
from sgm.interop.timestep.timesteps import VETimesteps as VETimesteps
