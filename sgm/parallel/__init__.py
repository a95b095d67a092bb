"""Work spread over the devices of one process, and of several.

A mesh has the axes "data" and "model". Training has one mesh of all devices; solves are each process's own.
"""

from sgm.parallel.devices import mesh as mesh
from sgm.parallel.meeting import initialise as initialise
from sgm.parallel.placement import AbstractPlacement as AbstractPlacement
from sgm.parallel.placement import Replicated as Replicated
from sgm.parallel.placement import Sharded as Sharded
from sgm.parallel.placement import describe as describe
from sgm.parallel.processes import ProcessLost as ProcessLost
from sgm.parallel.processes import is_first as is_first
from sgm.parallel.processes import share as share
