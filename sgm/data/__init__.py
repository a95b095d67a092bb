"""Data sets as (x, condition) records. Every name here is public."""

from sgm.data.arrays import Arrays
from sgm.data.base import AbstractDataset, AbstractFiniteDataset, DataUnavailable, Record, prefetch
from sgm.data.coins import Coins
from sgm.data.dead_leaves import DeadLeaves
from sgm.data.digits import Digits
from sgm.data.fields import AbstractGaussianField, GaussianField, GaussianFieldMap
from sgm.data.files import Files
from sgm.data.gaussian_process import GaussianProcess
from sgm.data.heartbeat import Heartbeat
from sgm.data.idx import Idx
from sgm.data.image_stream import ImageStream
from sgm.data.images import Images
from sgm.data.letters import Letters
from sgm.data.simulated import AbstractSimulated
from sgm.data.simulations import Prior, Simulations
from sgm.data.simulator import AbstractSimulator
from sgm.data.spectra import power_spectrum
from sgm.data.stored import AbstractStored
from sgm.data.table import Table
from sgm.data.toys import (
    AbstractNoisyToy,
    AbstractToy,
    Checkerboard,
    EightGaussians,
    Moons,
    Spiral,
    StandardSwissRoll,
    SwissRoll,
    TwoGaussians,
)
from sgm.data.volumes import GaussianVolume

__all__ = [
    "AbstractDataset",
    "AbstractFiniteDataset",
    "AbstractGaussianField",
    "AbstractNoisyToy",
    "AbstractSimulated",
    "AbstractSimulator",
    "AbstractStored",
    "AbstractToy",
    "Arrays",
    "Checkerboard",
    "Coins",
    "DataUnavailable",
    "DeadLeaves",
    "Digits",
    "EightGaussians",
    "Files",
    "GaussianField",
    "GaussianFieldMap",
    "GaussianProcess",
    "GaussianVolume",
    "Heartbeat",
    "Idx",
    "ImageStream",
    "Images",
    "Letters",
    "Moons",
    "Prior",
    "Record",
    "Simulations",
    "Spiral",
    "StandardSwissRoll",
    "SwissRoll",
    "Table",
    "TwoGaussians",
    "power_spectrum",
    "prefetch",
]
