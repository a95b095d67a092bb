"""Reading and preparing stored images, through the `datasets` library."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import datasets
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

from sgm.data.base import DataUnavailable
from sgm.data.pixels import UnsuitableImage, read_pixels

# A DatasetDict; under that name its base class, dict[str, "Dataset"], defeats run-time type checks.
Splits = Mapping[Any, datasets.Dataset]

_FOLDER_REMEDY = "give a folder of parquet or image files as path"
_HUB_TIMEOUT = 10.0  # seconds


class Stored:
    """Images as they are stored, in the hub or a folder.

    Arguments:
        name: Data set of the HuggingFace hub.
        path: Folder that is read instead.
        classes: Number of classes; None leaves labels out.

    Raises:
        DataUnavailable: for data that cannot be read or downloaded.
    """

    def __init__(self, name: str | None, path: str | None, classes: int | None):
        self.source = f"the folder {path}" if path is not None else f"the data set {name}"
        self.classes = classes
        if path is not None:
            self.splits = _load_folder(path)
        else:
            assert name is not None, "Images asks for one of the two"
            self.splits = _load_hub(name)
        if "train" not in self.splits:
            splits = list(self.splits)
            raise DataUnavailable(f"{self.source} has no split 'train', only {splits}: {_FOLDER_REMEDY}")

    @property
    def test(self) -> str | None:
        """Name of the stored split that is held out, None without one."""
        return next((split for split in ("test", "validation") if split in self.splits), None)

    def prepare(self, split: str, shape: tuple[int, ...], levels: int, background: str) -> datasets.Dataset:
        """A split with the columns "pixels", the bytes of a prepared image, and "label", where there are classes.

        Arguments:
            split: Name of the stored split.
            shape: Height, width and channels to prepare.
            levels: Number of grey levels.
            background: Colour under transparent pixels.
        """
        raw = self.splits[split].cast_column(self._image_column, datasets.Image(decode=False))
        features = {"pixels": datasets.Value("binary")} | ({"label": datasets.Value("int32")} if self.classes else {})
        return raw.map(
            _Preparation(
                where=f"split {split!r} of {self.source}",
                image_column=self._image_column,
                shape=shape,
                levels=levels,
                background=background,
                label_column=self._label_column if self.classes else None,
                class_index=self._class_index if self.classes else {},
            ),
            with_indices=True,
            remove_columns=raw.column_names,
            features=datasets.Features(features),
            desc=f"Preparing {split}",
        )

    @property
    def _features(self) -> datasets.Features:
        return self.splits["train"].features

    @property
    def _image_column(self) -> str:
        for column, feature in self._features.items():
            if isinstance(feature, datasets.Image):
                return column
        columns = list(self._features)
        raise DataUnavailable(f"{self.source} holds no images, only the columns {columns}: {_FOLDER_REMEDY}")

    @property
    def _label_column(self) -> str:
        for column, feature in self._features.items():
            if isinstance(feature, datasets.ClassLabel):
                return column
        if "label" in self._features:
            return "label"
        raise ValueError(f"{self.source} has no labels, only the columns {list(self._features)}: leave classes at None")

    @functools.cached_property
    def _class_index(self) -> dict[Any, int]:
        feature = self._features[self._label_column]
        if isinstance(feature, datasets.ClassLabel):
            values = set(range(len(feature.names)))
        else:
            values = {value for split in self.splits.values() for value in split.unique(self._label_column)} - {None}
        if len(values) != self.classes:
            raise ValueError(
                f"{self.source} has {len(values)} classes, but classes is {self.classes}: give their number"
            )
        return {value: index for index, value in enumerate(sorted(values))}


@dataclasses.dataclass(frozen=True)
class _Preparation:
    """Turns a stored row into the bytes of its pixels and its class.

    `datasets` finds a kept result by these fields, not by the code. Count `version` up with every change of the result.
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
