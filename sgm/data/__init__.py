"""Data sets as (x, condition) records. Every name here is public."""

from sgm.data.base import AbstractDataset, AbstractFiniteDataset, DataUnavailable, Record, prefetch
from sgm.data.digits import Digits
from sgm.data.images import Images
from sgm.data.toys import (
    AbstractNoisyToy,
    AbstractToy,
    Checkerboard,
    EightGaussians,
    Moons,
    Spiral,
    SwissRoll,
    TwoGaussians,
)

__all__ = [
    "AbstractDataset",
    "AbstractFiniteDataset",
    "AbstractNoisyToy",
    "AbstractToy",
    "Checkerboard",
    "DataUnavailable",
    "Digits",
    "EightGaussians",
    "Images",
    "Moons",
    "Record",
    "Spiral",
    "SwissRoll",
    "TwoGaussians",
    "prefetch",
]
