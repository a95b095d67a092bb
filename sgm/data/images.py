"""Image data sets from the HuggingFace hub or from a folder, through the `datasets` library."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import datasets
import numpy as np
import PIL.ImageColor
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

from sgm.data.base import AbstractFiniteDataset, DataUnavailable, Record, check_split
from sgm.data.pixels import UnsuitableImage, read_pixels

# A DatasetDict; under that name its base class, dict[str, "Dataset"], defeats run-time type checks.
Splits = Mapping[Any, datasets.Dataset]

_FOLDER_REMEDY = "give a folder of parquet or image files with --data.path FOLDER"
_HUB_TIMEOUT = 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class Images(AbstractFiniteDataset):
    """Images and their classes from the HuggingFace hub or a folder, prepared once and kept on disk by `datasets`.

    Images are turned upright by their EXIF orientation, cropped to the centre of the wanted aspect and resized with an
    antialiasing Lanczos filter. Of an animation, the first frame is read. "test" is the stored split test, else
    validation, else a fixed random tenth of train, which "train" then lacks.

    Arguments:

    - `name`: a data set of the HuggingFace hub, such as "nelorth/oxford-flowers".
    - `path`: a folder that is read instead, of parquet files (train*.parquet, test*.parquet) or of image files
      (train/CLASS/*.png), in any layout that `datasets.load_dataset` understands. A changed file is known by its
      modification time.
    - `resolution`: height and width in pixels, or one number for both.
    - `channels`: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha). Files are converted; those without alpha
      are opaque.
    - `flip`: mirror training images left to right, each with probability 1/2.
    - `classes`: the number of classes. The class is then the condition "label": the first column of class labels, or
      else the column named label, whose sorted distinct values are the classes.
    - `levels`: 256, or 65536 for files of 16 bits a channel: PNG, or any grey format that Pillow reads as such. Files
      of 8 bits then have their levels times 257. With 256, files of more bits are refused, since they would be cut.
    - `background`: the colour on which transparent pixels are laid, such as "white" or "#8080ff" (see
      `PIL.ImageColor`). Where alpha is kept, with 2 or 4 channels, it is the colour of fully transparent pixels alone.

    Raises ValueError for a setting out of range, an image that is unreadable or of another depth, or a missing label;
    DataUnavailable for data that are not to be had.

    Example:

        data = Images(None, "photographs", resolution=(48, 64))
        x, condition = data.rows("train", 0, 16)  # uint8 (16, 48, 64, 3), and {}
    """

    name: str | None
    path: str | None = None
    resolution: int | tuple[int, int] = 64
    """Height and width in pixels, or one number for both."""
    channels: int = 3
    """1 is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
    flip: bool = False
    classes: int | None = None
    levels: Literal[256, 65536] = 256
    """65536 reads files of 16 bits a channel; 256 refuses them."""
    background: str = "white"
    """The colour under transparent pixels, such as white or #8080ff."""

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
        try:
            opaque = len(PIL.ImageColor.getrgb(self.background)) == 3
        except ValueError:
            opaque = False
        if not opaque:
            raise ValueError(f"background is {self.background!r}: name an opaque colour, such as white or #8080ff")

    @property
    def shape(self) -> tuple[int, ...]:
        height, width = self.resolution if isinstance(self.resolution, tuple) else (self.resolution,) * 2
        return height, width, self.channels

    @property
    def conditions(self) -> Mapping[str, Any]:
        return {"classes": self.classes} if self.classes else {}

    def size(self, split: str) -> int:
        return len(self._examples(split))

    def take(self, split: str, index: np.ndarray) -> Record:
        rows = self._examples(split)[index]
        dtype = np.uint8 if self.levels == 256 else np.uint16
        x = np.frombuffer(b"".join(rows["pixels"]), dtype).reshape(-1, *self.shape)
        return x, {"label": np.asarray(rows["label"], np.int32)} if self.classes else {}

    @property
    def _source(self) -> str:
        return f"the folder {self.path}" if self.path is not None else f"the data set {self.name}"

    @functools.cached_property
    def _stored(self) -> Splits:
        if self.path is not None:
            stored = _load_folder(self.path)
        else:
            assert self.name is not None, "__post_init__ asks for one of the two"
            stored = _load_hub(self.name)
        if "train" not in stored:
            raise DataUnavailable(f"{self._source} has no split 'train', only {list(stored)}: {_FOLDER_REMEDY}")
        return stored

    @property
    def _features(self) -> datasets.Features:
        return self._stored["train"].features

    @property
    def _image_column(self) -> str:
        for column, feature in self._features.items():
            if isinstance(feature, datasets.Image):
                return column
        columns = list(self._features)
        raise DataUnavailable(f"{self._source} holds no images, only the columns {columns}: {_FOLDER_REMEDY}")

    @property
    def _label_column(self) -> str:
        for column, feature in self._features.items():
            if isinstance(feature, datasets.ClassLabel):
                return column
        if "label" in self._features:
            return "label"
        raise ValueError(
            f"{self._source} has no labels, only the columns {list(self._features)}: leave classes at None"
        )

    @functools.cached_property
    def _class_index(self) -> dict[Any, int]:
        feature = self._features[self._label_column]
        if isinstance(feature, datasets.ClassLabel):
            values = set(range(len(feature.names)))
        else:
            values = {value for split in self._stored.values() for value in split.unique(self._label_column)} - {None}
        if len(values) != self.classes:
            raise ValueError(
                f"{self._source} has {len(values)} classes, but classes is {self.classes}: give their number"
            )
        return {value: index for index, value in enumerate(sorted(values))}

    def _examples(self, split: str) -> datasets.Dataset:
        check_split(split)
        return self._train if split == "train" else self._test

    @functools.cached_property
    def _train(self) -> datasets.Dataset:
        prepared = self._prepare("train")
        return prepared if self._stored_test else prepared.select(_holdout(len(prepared))[1])

    @functools.cached_property
    def _test(self) -> datasets.Dataset:
        if self._stored_test:
            return self._prepare(self._stored_test)
        prepared = self._prepare("train")
        return prepared.select(_holdout(len(prepared))[0])

    @property
    def _stored_test(self) -> str | None:
        return next((split for split in ("test", "validation") if split in self._stored), None)

    def _prepare(self, split: str) -> datasets.Dataset:
        raw = self._stored[split].cast_column(self._image_column, datasets.Image(decode=False))
        features = {"pixels": datasets.Value("binary")} | ({"label": datasets.Value("int32")} if self.classes else {})
        return raw.map(
            _Preparation(
                where=f"split {split!r} of {self._source}",
                image_column=self._image_column,
                shape=self.shape,
                levels=self.levels,
                background=self.background,
                label_column=self._label_column if self.classes else None,
                class_index=self._class_index if self.classes else {},
            ),
            with_indices=True,
            remove_columns=raw.column_names,
            features=datasets.Features(features),
            desc=f"Preparing {split}",
        )


@dataclasses.dataclass(frozen=True)
class _Preparation:
    """From a stored row to the bytes of its pixels and its class.

    `datasets` finds a result it has kept by these fields, not by the code: hence `version`, to be counted up with every
    change of what is computed.
    """

    where: str
    image_column: str
    shape: tuple[int, ...]
    levels: int
    background: str
    label_column: str | None
    class_index: dict[Any, int]
    version: int = 2

    def __call__(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        stored = row[self.image_column] or {"bytes": None, "path": None}
        file = f" ({stored['path']})" if stored["path"] else ""
        image = f"image {number}{file} of {self.where}"
        try:
            prepared: dict[str, Any] = {"pixels": self._pixels(stored)}
        except UnsuitableImage as error:
            raise ValueError(f"{image}: {error}") from None
        except Exception as error:  # decoders of broken files raise almost anything
            raise ValueError(f"{image} cannot be read ({error}): replace it or leave it out") from None
        if self.label_column is not None:
            label = row[self.label_column]
            if label not in self.class_index:
                raise ValueError(
                    f"image {number} of {self.where} has no class ({label!r}): give it one or leave classes at None"
                )
            prepared["label"] = self.class_index[label]
        return prepared

    def _pixels(self, stored: dict[str, Any]) -> bytes:
        encoded = stored["bytes"]
        if encoded is None:
            if stored["path"] is None:
                raise ValueError("it is missing")
            encoded = pathlib.Path(stored["path"]).read_bytes()
        height, width, channels = self.shape
        return read_pixels(encoded, (height, width), channels, self.levels, self.background).tobytes()


def _holdout(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The held-out tenth of `size` rows, at least one unless it is the only one, and the rest."""
    held_out = max(size // 10, min(1, size - 1))
    order = np.random.default_rng(0).permutation(size)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


def _load_folder(path: str) -> Splits:
    folder = pathlib.Path(path).expanduser().resolve()
    if folder.is_file():
        raise DataUnavailable(f"{folder} is a file, not the folder {folder.parent} that holds it: {_FOLDER_REMEDY}")
    if not folder.is_dir():
        raise DataUnavailable(f"there is no folder {folder}: {_FOLDER_REMEDY}")
    try:
        return datasets.load_dataset(str(folder))
    except (DatasetsError, FileNotFoundError, ValueError) as error:
        raise DataUnavailable(f"the folder {folder} cannot be read ({_first_line(error)}): {_FOLDER_REMEDY}") from None


def _load_hub(name: str) -> Splits:
    try:
        # load_dataset alone would retry for half a minute before it gave up
        HfApi().dataset_info(name, timeout=_HUB_TIMEOUT)
        return datasets.load_dataset(name)
    except (RepositoryNotFoundError, DatasetNotFoundError, HFValidationError) as error:
        raise DataUnavailable(
            f"the HuggingFace hub has no data set {name!r} open to you ({_first_line(error)}): correct the name, or "
            f"{_FOLDER_REMEDY}"
        ) from None
    except (httpx.HTTPError, ConnectionError, LocalEntryNotFoundError) as error:
        try:
            cached = Cache(repo_id=name, dataset_name=name.split("/")[-1], version="auto", hash="auto").as_dataset()
            assert isinstance(cached, datasets.DatasetDict), "no single split was asked for"
            return cached
        except ValueError:
            raise DataUnavailable(
                f"the data set {name!r} is neither on this computer nor to be had from the HuggingFace hub "
                f"({_first_line(error)}): connect to the internet so that it can be downloaded once, or "
                f"{_FOLDER_REMEDY}"
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0]
