"""Data sets as (x, condition) records. Every name here is public."""

from sgm.data.base import AbstractDataset, AbstractFiniteDataset, DataUnavailable, Record, prefetch
from sgm.data.coins import Coins
from sgm.data.dead_leaves import DeadLeaves
from sgm.data.digits import Digits
from sgm.data.fields import AbstractGaussianField, GaussianField, GaussianFieldMap, power_spectrum
from sgm.data.images import Images
from sgm.data.simulated import AbstractSimulated
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

__all__ = [
    "AbstractDataset",
    "AbstractFiniteDataset",
    "AbstractGaussianField",
    "AbstractNoisyToy",
    "AbstractSimulated",
    "AbstractToy",
    "Checkerboard",
    "Coins",
    "DataUnavailable",
    "DeadLeaves",
    "Digits",
    "EightGaussians",
    "GaussianField",
    "GaussianFieldMap",
    "Images",
    "Moons",
    "Record",
    "Spiral",
    "StandardSwissRoll",
    "SwissRoll",
    "TwoGaussians",
    "power_spectrum",
    "prefetch",
]
