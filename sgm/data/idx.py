"""Images and classes in idx files, the format of MNIST and of the data sets that take its place."""

import dataclasses
import functools
import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sgm.data.base import AbstractFiniteDataset, DataUnavailable, Record, check_split
from sgm.nn.conditioning import Conditioning

_PREFIXES = {"train": "train", "test": "t10k"}
_BYTES = 0x08  # The code of unsigned bytes in the third byte of a file.


@dataclasses.dataclass(frozen=True)
class Idx(AbstractFiniteDataset):
    """Grey images of 8 bits and their classes, in the four idx files of MNIST, Fashion-MNIST, KMNIST and the like.

    The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
    as they are or with .gz.

    Arguments:
        path: Folder of the files.
        resolution: Height and width of the images in pixels, or one number for both.
        classes: Number of classes. The class is then the condition "label".

    Raises:
        DataUnavailable: where a file is not there, is damaged, no idx file of bytes, or of images of another size, when
            it is first used.
        ValueError: for more classes in the files.

    Example:
        >>> data = Idx("fashion-mnist", classes=10)  # train-images-idx3-ubyte.gz and the other three
        >>> data.shape, data.levels, data.conditioning.classes
        ((28, 28, 1), 256, 10)

    Reference: LeCun et al., "The MNIST database of handwritten digits"; Xiao et al. 2017 (arXiv:1708.07747).
    """

    path: str
    resolution: int | tuple[int, int] = 28
    classes: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        height, width = self.resolution if isinstance(self.resolution, tuple) else (self.resolution,) * 2
        return height, width, 1

    @property
    def levels(self) -> int | None:
        return 256

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(classes=self.classes)

    def size(self, split: str) -> int:
        check_split(split)
        return len(self._images(split))

    def take(self, split: str, index: np.ndarray) -> Record:
        check_split(split)
        return self._images(split)[index], {"label": self._labels(split)[index]} if self.classes else {}

    def _images(self, split):
        return self._arrays[f"{_PREFIXES[split]}-images-idx3-ubyte"][..., None]

    def _labels(self, split):
        return self._arrays[f"{_PREFIXES[split]}-labels-idx1-ubyte"].astype(np.int32)

    @functools.cached_property
    def _arrays(self):
        names = [f"{prefix}-{kind}-ubyte" for prefix in _PREFIXES.values() for kind in ("images-idx3", "labels-idx1")]
        arrays = {name: read_idx(_found(Path(self.path), name)) for name in names}
        for prefix in _PREFIXES.values():
            images, labels = (arrays[f"{prefix}-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))
            if len(images) != len(labels):
                raise DataUnavailable(
                    f"Idx: {self.path} has {len(images)} images but {len(labels)} labels of {prefix}; fetch its files "
                    "again."
                )
            if images.shape[1:] != self.shape[:2]:
                raise DataUnavailable(
                    f"Idx: the images of {prefix} in {self.path} have shape {images.shape[1:]}; give it as resolution."
                )
            if self.classes and labels.max(initial=0) >= self.classes:
                raise ValueError(
                    f"Idx: classes = {self.classes}, but {self.path} has the class {labels.max()}; give classes = "
                    f"{labels.max() + 1} or more."
                )
        return arrays


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read an idx file of unsigned bytes, compressed by gzip where its name ends in .gz.

    Raises:
        DataUnavailable: for a file that is damaged, or has entries of another kind.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnavailable(f"Idx: {path} can not be read ({error}); fetch it again.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _BYTES:
        raise DataUnavailable(f"Idx: {path} is no idx file of unsigned bytes; give a folder of such files.")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else None
    if shape is None or len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataUnavailable(f"Idx: {path} is cut off, or longer than its head says; fetch it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _found(folder, name):
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataUnavailable(f"Idx: there is no {name}, nor {name}.gz, in {folder}; give the folder of the four files.")
