"""Image data sets from the HuggingFace hub or from a folder.

The libraries that read them take seconds to import. They are in `prepare`, which is imported at the first read.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sgm.data.base import AbstractDataset, AbstractFiniteDataset, Record, check_split, holdout
from sgm.nn.conditioning import Conditioning


class AbstractImages(AbstractDataset):
    """Images and their classes, from the HuggingFace hub or a folder. The settings are explained at `Images`."""

    name: str | None
    path: str | None
    resolution: int | tuple[int, int]
    channels: int
    flip: bool
    classes: int | None
    levels: Literal[256, 65536]
    background: str

    def __post_init__(self):
        if self.name is None and self.path is None:
            raise ValueError("neither name nor path is given: name a data set of the HuggingFace hub or a local folder")
        sides = self.resolution if isinstance(self.resolution, tuple) else (self.resolution,) * 2
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(
                f"resolution is {self.resolution}: images need at least 1 pixel a side; give one number or two, "
                "height and width"
            )
        if self.channels not in (1, 2, 3, 4):
            raise ValueError(
                f"channels is {self.channels}: images have 1 channel (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and "
                "alpha)"
            )
        if self.levels not in (256, 65536):
            raise ValueError(f"levels is {self.levels}: images have 256, of 8 bits, or 65536, of 16")
        if not _is_opaque(self.background):
            raise ValueError(f"background is {self.background!r}: name an opaque colour, such as white or #8080ff")

    @property
    def shape(self) -> tuple[int, ...]:
        height, width = self.resolution if isinstance(self.resolution, tuple) else (self.resolution,) * 2
        return height, width, self.channels

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(classes=self.classes or None)

    def record(self, pixels: Sequence[bytes], labels: Sequence[int]) -> Record:
        """The record of prepared images.

        Arguments:
            pixels: Bytes of each image.
            labels: Class of each image; none where `classes` is None.
        """
        x = np.frombuffer(b"".join(pixels), np.uint8 if self.levels == 256 else np.uint16).reshape(-1, *self.shape)
        return x, {"label": np.asarray(labels, np.int32)} if self.classes else {}


@dataclasses.dataclass(frozen=True)
class Images(AbstractImages, AbstractFiniteDataset):
    """Images and their classes from the HuggingFace hub or a folder, prepared once and kept on disk by `datasets`.

    Images are turned upright by their EXIF orientation, cropped to the centre of the wanted aspect and resized with an
    antialiasing Lanczos filter. Of an animation, the first frame is read. The split "test" is the stored split test,
    else the stored split validation, else a fixed random tenth of train, which "train" then lacks.

    Arguments:
        name: Data set of the HuggingFace hub, such as "nelorth/oxford-flowers".
        path: Folder that is read instead, of parquet files (`train*.parquet`, `test*.parquet`) or of image files
            (train/CLASS/*.png), in any layout that `datasets.load_dataset` understands. A changed file is noticed by
            its modification time.
        resolution: Height and width in pixels, or one number for both.
        channels: Number of channels: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha). Files are converted;
            those without alpha are opaque.
        flip: Whether training images are mirrored left to right, each with probability 1/2.
        classes: Number of classes. The class is then the condition "label": the first column of class labels, or else
            the column named label, whose sorted distinct values are the classes.
        levels: Number of grey levels: 256, or 65536 for files of 16 bits a channel (PNG, or any grey format that Pillow
            reads as such). Files of 8 bits then have their levels times 257. With 256, files of more bits are refused,
            since they would be cut.
        background: Colour on which transparent pixels are laid, such as "white" or "#8080ff" (see `PIL.ImageColor`).
            Where alpha is kept, with 2 or 4 channels, it is the colour of fully transparent pixels alone.

    Raises:
        ValueError: for an argument out of range, an image that cannot be read or has another depth, or a missing label.
        DataUnavailable: for data that cannot be read or downloaded.

    Example:
        >>> data = Images(path="photographs", resolution=(48, 64), flip=True)
        >>> data.shape, data.levels
        ((48, 64, 3), 256)
    """

    name: str | None = None
    path: str | None = None
    resolution: int | tuple[int, int] = 64
    channels: int = 3
    flip: bool = False
    classes: int | None = None
    levels: Literal[256, 65536] = 256
    background: str = "white"

    def size(self, split: str) -> int:
        check_split(split)
        return len(self._split(split))

    def take(self, split: str, index: np.ndarray) -> Record:
        check_split(split)
        rows = self._split(split)[index]
        return self.record(rows["pixels"], rows["label"] if self.classes else ())

    # A `datasets.Dataset` of the columns pixels and label; the class is not named here, since it is loaded when used.
    def _split(self, split: str) -> Any:
        return self._train if split == "train" else self._test

    @functools.cached_property
    def _stored(self) -> Any:
        from sgm.data import prepare

        return prepare.Stored(self.name, self.path, self.classes)

    @functools.cached_property
    def _train(self) -> Any:
        prepared = self._prepare("train")
        return prepared if self._stored.test else prepared.select(holdout(len(prepared))[1])

    @functools.cached_property
    def _test(self) -> Any:
        if self._stored.test:
            return self._prepare(self._stored.test)
        prepared = self._prepare("train")
        return prepared.select(holdout(len(prepared))[0])

    def _prepare(self, split: str) -> Any:
        return self._stored.prepare(split, self.shape, self.levels, self.background)


def _is_opaque(background: str) -> bool:
    from PIL import ImageColor

    try:
        return len(ImageColor.getrgb(background)) == 3
    except ValueError:
        return False
