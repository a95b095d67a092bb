"""Examples that lie in arrays: their held-out split, their checks, and batches of them.

Subclasses say where they lie: in memory (`Arrays`), in files (`Files`), in columns of a table (`Table`).
"""

import abc
import dataclasses
import functools
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from sgm.checks import check_count
from sgm.data.base import AbstractFiniteDataset, Record, check_split, fitted_blocks, holdout
from sgm.data.columns import checked_columns
from sgm.nn.conditioning import Conditioning
from sgm.nn.units import Units

# A mean beyond so many standard deviations costs float32 two of its seven digits.
_FAR = 100
_LABELS_AT_ONCE = 2**20
_LEAVE_OUT = "leave it out"


@runtime_checkable
class Source(Protocol):
    """Rows in memory or in a file, read by their positions."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __getitem__(self, index: np.ndarray, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Parts:
    """The arrays of a data set, each with an example a row.

    Arguments:
        x: Examples, of any shape.
        params: Vectors of parameters.
        label: Numbers of classes.
        image: Images that are conditions.
        names: Names of the columns of x, where they have some.
        held_out: Which examples are held out; None for a random share.
    """

    x: Source
    params: Source | None = None
    label: Source | None = None
    image: Source | None = None
    names: tuple[str, ...] | None = None
    held_out: np.ndarray | None = None


class AbstractStored(AbstractFiniteDataset):
    """A data set of arrays.

    The examples are those of `parts`, checked when they are first used. Numbers come as float32, or as float64 where
    float32 would lose digits: where the source has them, and a mean is beyond 100 standard deviations, as of dates.
    """

    held_out: Any
    seed: int
    grey_levels: int | None = None
    classes: int | None = None
    missing: bool = False
    _remedies: ClassVar[Mapping[str, str]] = {
        "categories": "pass a category as label or among params, grey levels as np.uint8 with grey_levels, or leave it "
        "out"
    }

    @property
    @abc.abstractmethod
    def parts(self) -> Parts:
        """The arrays. A property that is kept, since it is asked for with each batch."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self._checked.x.shape[1:] or (1,)

    @property
    def levels(self) -> int | None:
        dtype = self._checked.x.dtype
        return None if dtype.kind == "f" else self.grey_levels or 2 ** (8 * dtype.itemsize)

    @property
    def conditioning(self) -> Conditioning:
        params, image = self._checked.params, self._checked.image
        return Conditioning(
            params=None if params is None else _vectors(params)[1],
            classes=self._classes,
            image=None if image is None else self._images(image)[1:],
        )

    def statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._statistics

    def size(self, split: str) -> int:
        check_split(split)
        return len(self._splits[split])

    def take(self, split: str, index: np.ndarray) -> Record:
        check_split(split)
        rows, parts, fields = self._splits[split][index], self._checked, {}
        x = self._finite("x", parts.x[rows], rows).astype(self._dtype, copy=False).reshape(-1, *self.shape)
        if parts.params is not None:
            params = self._finite("params", parts.params[rows], rows)
            fields["params"] = params.astype(np.float32).reshape(_vectors(params))
        if self._classes is not None and parts.label is not None:
            fields["label"] = parts.label[rows].astype(np.int32)
        if parts.image is not None:
            image = self._finite("image", parts.image[rows], rows)
            fields["image"] = image.astype(np.float32).reshape(self._images(image))
        return x, fields

    def check(self) -> None:
        """Look at the examples on which units are fitted, and at all labels.

        Raises:
            ValueError: for what no model can be trained on, with the remedy.
        """
        low, high = math.inf, -math.inf
        for chunk in self._chunks():
            low, high = np.fmin(low, np.fmin.reduce(chunk, None)), np.fmax(high, np.fmax.reduce(chunk, None))
        if self.levels is not None:
            self._check_levels(int(low), int(high))
        _ = self._statistics, self._classes

    def _check_levels(self, low: int, high: int) -> None:
        """Raise for one grey level only; warn where few of those that the type has are seen."""
        if low == high:
            raise ValueError(f"{self._call}: x is constant (= {low}); pass examples that differ.")
        if self.grey_levels is None and self.levels is not None and high < self.levels / 4:
            warnings.warn(
                f"{self._call}: x is taken for {self.levels} grey levels, after its dtype, but the largest is {high}; "
                f"pass grey_levels={high + 1} if there are no more, or x.astype(np.float32) if these are numbers.",
                stacklevel=5,
            )

    @property
    def _call(self) -> str:
        return type(self).__name__

    @functools.cached_property
    def _checked(self) -> Parts:
        """The parts, of types and shapes that can be what they are said to be."""
        parts = self.parts
        _check_type(self._call, parts.x.dtype, self.grey_levels)
        for name in ("params", "image"):
            source = getattr(parts, name)
            if source is not None and source.dtype.kind not in "fiub":
                raise ValueError(f"{self._call}: {name} has dtype {source.dtype}; pass real numbers.")
        sizes = {name: getattr(parts, name) for name in ("x", "params", "label", "image", "held_out")}
        sizes = {name: len_of(source) for name, source in sizes.items() if source is not None}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"{self._call}: {found}; pass as many rows of each, one for each example.")
        if 0 in parts.x.shape or not parts.x.shape:
            raise ValueError(f"{self._call}: x has shape {parts.x.shape}; pass examples along the first axis.")
        axes = len(parts.x.shape) - 1
        of_image = (axes, axes + 1) if axes in (2, 4) else (3, 4)
        for name, ranks in {"params": (1, 2), "label": (1,), "image": of_image}.items():
            source = getattr(parts, name)
            if source is not None and len(source.shape) not in ranks:
                raise ValueError(f"{self._call}: {name} has shape {source.shape}; pass {_SHAPES[name]}.")
        return parts

    @functools.cached_property
    def _splits(self) -> dict[str, np.ndarray]:
        """Positions of the examples of each split, in increasing order."""
        mask, size = self._checked.held_out, len_of(self._checked.x)
        if mask is None:
            check_count(self._call, "seed", self.seed, 0)
            share, remedy = self.held_out, "give a share of at least 0, less than 1"
            if not isinstance(share, numbers.Real):
                raise TypeError(f"{self._call}: held_out is a {type(share).__name__}; {remedy}.")
            if not 0 <= float(share) < 1:
                raise ValueError(f"{self._call}: held_out is {share}; {remedy}.")
            test, train = holdout(size, float(share), self.seed)
        else:
            test, train = np.flatnonzero(mask), np.flatnonzero(~mask)
        if not len(train):
            raise ValueError(f"{self._call}: all {size} examples are held out; leave some to train on.")
        return {"train": train, "test": test}

    @functools.cached_property
    def _dtype(self) -> np.dtype:
        dtype = self._checked.x.dtype
        if dtype.kind != "f":
            return dtype.newbyteorder("=")
        mean, std = (np.asarray(part.value) for part in (self.units.mean, self.units.std))
        return np.dtype(np.float64 if dtype.itemsize > 4 and np.any(abs(mean) > _FAR * std) else np.float32)

    @functools.cached_property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        params = self._checked.params
        if params is None:
            return None
        rows = self._training_rows(_vectors(params)[1])
        chunks = (np.asarray(params[part]).reshape(len(part), -1) for part in rows)
        remedies = {"constant": _LEAVE_OUT}
        checked = checked_columns(self._call, lambda place: f"column {place} of params", chunks, remedies)
        units = Units.fit(checked)
        return np.asarray(units.mean.value, np.float32), np.asarray(units.std.value, np.float32)

    @functools.cached_property
    def _classes(self) -> int | None:
        """Number of classes: as given, or one more than the largest label."""
        label, classes, most = self._checked.label, self.classes, 0
        if label is None:
            if classes is not None:
                raise ValueError(
                    f"{self._call}: classes = {classes}, but there is no label; give one, or leave it out."
                )
            return None
        if label.dtype.kind not in "fiub":
            raise ValueError(
                f"{self._call}: label has dtype {label.dtype}; number the classes from 0, as "
                "np.unique(label, return_inverse=True)[1] does."
            )
        for start in range(0, label.shape[0], _LABELS_AT_ONCE):
            values = np.asarray(label[np.arange(start, min(start + _LABELS_AT_ONCE, label.shape[0]))])
            wrong = (values < 0) | (values != np.rint(values)) | (classes is not None and values >= (classes or 0))
            if np.any(wrong):
                place = int(np.argmax(wrong))
                last = "" if classes is None else f" ... {classes - 1}, as classes is {classes}"
                raise ValueError(
                    f"{self._call}: the label of example {start + place} is {values[place]}; "
                    f"labels are the whole numbers from 0{last}."
                )
            most = max(most, int(values.max()))
        return classes or most + 1

    def _chunks(self) -> Iterator[np.ndarray]:
        parts, shape, names = self._checked, self.shape, self._checked.names
        read = (parts.x[rows].reshape(-1, *shape) for rows in self._training_rows(int(np.prod(shape))))
        if self.levels is not None:
            return (self._within_levels(chunk) for chunk in read)
        kind = "column" if len(shape) == 1 else "channel"
        constant = f"{_LEAVE_OUT}, or pass x[..., None] if these are grey images" if len(shape) == 2 else _LEAVE_OUT

        def name(place):
            return f"column {names[place]!r}" if names else "x" if shape[-1] == 1 else f"{kind} {place} of x"

        return checked_columns(self._call, name, read, {**self._remedies, "constant": constant}, self.missing)

    def _training_rows(self, entries: int) -> Iterator[np.ndarray]:
        train = self._splits["train"]
        return (train[start:stop] for start, stop in fitted_blocks(len(train), entries))

    def _finite(self, name: str, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if values.dtype.kind != "f":
            return self._within_levels(values) if name == "x" else values
        missing = self.missing and name == "x"
        wrong = np.isinf(values) if missing else ~np.isfinite(values)
        if np.any(wrong):
            place = rows[np.argwhere(wrong)[0][0]]
            raise ValueError(f"{self._call}: {name} of example {place} is not finite; mend it or leave it out.")
        return values

    def _images(self, image: Source) -> tuple[int, ...]:
        """The shape of images, with a channel axis: of signals and volumes where the examples are such."""
        axes = len(self.shape) if len(self.shape) in (2, 4) else 3
        return tuple(image.shape) if len(image.shape) == 1 + axes else (*image.shape, 1)

    def _within_levels(self, values: np.ndarray) -> np.ndarray:
        if self.grey_levels and values.size and values.max() >= self.grey_levels:
            raise ValueError(
                f"{self._call}: x has the grey level {values.max()}, but grey_levels is {self.grey_levels}, so that "
                f"they are 0 ... {self.grey_levels - 1}; give their number."
            )
        return values


def make_tuples(data: AbstractStored, *names: str) -> None:
    """Make tuples of fields that are lists, as they are in a notebook, so that they can be written as text and back."""
    for name in names:
        if isinstance(given := getattr(data, name), list):
            object.__setattr__(data, name, tuple(given))


_SHAPES = {
    "params": "a vector of parameters for each example, (examples, params)",
    "label": "the number of its class for each example, (examples,)",
    "image": "an image for each example, (examples, height, width, channels), or a signal or volume of as many axes as "
    "the examples",
}


def len_of(source: Source) -> int:
    """Number of rows."""
    return source.shape[0] if source.shape else 0


def _vectors(params: Source) -> tuple[int, int]:
    return params.shape if len(params.shape) == 2 else (*params.shape, 1)  # type: ignore


def _check_type(call: str, dtype: np.dtype, grey_levels: int | None) -> None:
    """Raise unless x can be numbers or grey levels."""
    if dtype.kind == "f" or dtype.newbyteorder("=") in (np.uint8, np.uint16):
        if grey_levels is None:
            return
        check_count(call, "grey_levels", grey_levels, 2)
        if dtype.kind == "f":
            raise ValueError(f"{call}: grey_levels is {grey_levels}, but x has dtype {dtype}; pass x.astype(np.uint8).")
        if grey_levels > 2 ** (8 * dtype.itemsize):
            raise ValueError(
                f"{call}: grey_levels is {grey_levels}, but x has dtype {dtype}, which holds no more than "
                f"{2 ** (8 * dtype.itemsize)} levels; pass as many as there are."
            )
        return
    if dtype.kind == "b":
        raise ValueError(f"{call}: x has dtype bool; pass x.astype(np.uint8) with grey_levels=2.")
    if dtype.kind in "iu":
        raise ValueError(
            f"{call}: x has dtype {dtype}; convert it to np.float32 if these are numbers, to np.uint8 or np.uint16 if "
            "they are grey levels."
        )
    raise ValueError(f"{call}: x has dtype {dtype}; pass real numbers, or grey levels as np.uint8 or np.uint16.")
