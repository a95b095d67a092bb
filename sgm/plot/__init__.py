"""Figures. Each function draws one and returns it; `save` writes it."""

from sgm.plot.base import Batch as Batch
from sgm.plot.base import Figure as Figure
from sgm.plot.base import Points as Points
from sgm.plot.base import save as save
from sgm.plot.images import film_strip as film_strip
from sgm.plot.images import image_grid as image_grid
from sgm.plot.images import signal_grid as signal_grid
from sgm.plot.images import signal_strip as signal_strip
from sgm.plot.plane import density as density
from sgm.plot.plane import plane_grid as plane_grid
from sgm.plot.plane import points as points
from sgm.plot.plane import trajectories as trajectories
from sgm.plot.posteriors import PREDICTIVE_QUANTILES as PREDICTIVE_QUANTILES
from sgm.plot.posteriors import coverage as coverage
from sgm.plot.posteriors import local as local
from sgm.plot.posteriors import predictive as predictive
from sgm.plot.posteriors import ranks as ranks
from sgm.plot.shapes import examples as examples
from sgm.plot.shapes import is_of_the_plane as is_of_the_plane
from sgm.plot.shapes import manner as manner
from sgm.plot.shapes import middle_slices as middle_slices
from sgm.plot.tables import corner as corner
from sgm.plot.tables import histogram as histogram
from sgm.plot.training import arrays as arrays
from sgm.plot.training import objective as objective
from sgm.plot.training import process as process
