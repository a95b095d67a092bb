"""Handwritten digits that come with scikit-learn: small enough to train on anywhere, real enough to measure on."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from sgm.data.base import AbstractFiniteDataset, Record, check_split
from sgm.nn.conditioning import Conditioning

_TRAIN_SIZE = 1500


@dataclasses.dataclass(frozen=True)
class Digits(AbstractFiniteDataset):
    """The 1797 digits of `sklearn.datasets.load_digits`, 8x8, 17 grey levels: the first 1500 train, the other 297 test.

    With `label`, the digit 0 ... 9 is the condition field "label".

    Arguments:
        label: Whether the digit 0 ... 9 is the condition.

    Example:
        >>> data = Digits(label=True)
        >>> data.shape, data.levels, data.conditioning.classes
        ((8, 8, 1), 17, 10)

    Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """

    label: bool = False

    shape: ClassVar[tuple[int, ...]] = (8, 8, 1)
    levels: ClassVar[int | None] = 17

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(classes=10 if self.label else None)

    @functools.cached_property
    def _examples(self) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits  # here, because it takes a second that most programs need not wait

        images, digits = load_digits(return_X_y=True)
        return np.asarray(images, np.uint8).reshape(-1, *self.shape), np.asarray(digits, np.int32)

    def size(self, split: str) -> int:
        check_split(split)
        return _TRAIN_SIZE if split == "train" else len(self._examples[0]) - _TRAIN_SIZE

    def take(self, split: str, index: np.ndarray) -> Record:
        check_split(split)
        images, digits = self._examples
        place = index if split == "train" else index + _TRAIN_SIZE
        return images[place], {"label": digits[place]} if self.label else {}
