"""Work spread over the devices of one process, and of several.

A mesh has the axes "data" and "model". Training has one mesh of all devices; solves are each process's own.
"""

from sgm.parallel.devices import local_mesh as local_mesh
from sgm.parallel.devices import mesh as mesh
from sgm.parallel.devices import mesh_for as mesh_for
from sgm.parallel.devices import own_rows as own_rows
from sgm.parallel.devices import replicate as replicate
from sgm.parallel.devices import shard as shard
from sgm.parallel.placement import AbstractPlacement as AbstractPlacement
from sgm.parallel.placement import Replicated as Replicated
from sgm.parallel.placement import Sharded as Sharded
from sgm.parallel.placement import describe as describe
from sgm.parallel.processes import ProcessLost as ProcessLost
from sgm.parallel.processes import gather as gather
from sgm.parallel.processes import initialise as initialise
from sgm.parallel.processes import is_first as is_first
from sgm.parallel.processes import local as local
from sgm.parallel.processes import share as share
from sgm.parallel.processes import told_of_lost_processes as told_of_lost_processes
from sgm.parallel.processes import wait_for_all as wait_for_all
from sgm.parallel.spread import group_size as group_size
from sgm.parallel.spread import in_groups as in_groups
from sgm.parallel.spread import spread as spread
