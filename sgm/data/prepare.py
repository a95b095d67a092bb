"""Reading and preparing stored images, through the `datasets` library."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import datasets
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

from sgm.data.base import DataUnavailable, first_line
from sgm.data.pixels import UnsuitableImage, read_pixels
from sgm.data.shards import RowGroups, schema_of

T = TypeVar("T")

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
        self.source = _source(name, path)
        self.classes = classes
        if path is not None:
            self.splits = _from_folder(path, datasets.load_dataset)
        else:
            assert name is not None, "Images asks for one of the two"
            self.splits = _load_hub(name)
        if "train" not in self.splits:
            splits = list(self.splits)
            raise DataUnavailable(f"{self.source} has no split 'train', only {splits}: {_FOLDER_REMEDY}")

    @property
    def test(self) -> str | None:
        """Name of the stored split that is held out, None without one."""
        return _held_out(self.splits)

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
            Preparation(
                where=f"split {split!r} of {self.source}",
                image_column=self._image_column,
                shape=shape,
                levels=levels,
                background=background,
                label_column=label_column(self._features, self.source) if self.classes else None,
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
        return image_column(self._features, self.source)

    @functools.cached_property
    def _class_index(self) -> dict[Any, int]:
        column = label_column(self._features, self.source)
        feature = self._features[column]
        if isinstance(feature, datasets.ClassLabel):
            values = set(range(len(feature.names)))
        else:
            values = {value for split in self.splits.values() for value in split.unique(column)} - {None}
        if len(values) != self.classes:
            raise ValueError(
                f"{self.source} has {len(values)} classes, but classes is {self.classes}: give their number"
            )
        return {value: index for index, value in enumerate(sorted(values))}


class StoredShards:
    """Images as they are stored in parquet files, which are read where they are.

    Arguments:
        name: Data set of the HuggingFace hub.
        path: Folder that is read instead.
        classes: Number of classes; None leaves labels out.

    Raises:
        DataUnavailable: for data that cannot be found, and for files other than parquet.
    """

    def __init__(self, name: str | None, path: str | None, classes: int | None):
        self.source = _source(name, path)
        self.classes = classes
        if path is not None:
            builder = _from_folder(path, datasets.load_dataset_builder)
        else:
            assert name is not None, "one of the two is given"
            try:
                builder = _from_hub(name, datasets.load_dataset_builder)
            except _NO_CONNECTION as error:
                raise DataUnavailable(
                    f"{self.source} is not to be had from the HuggingFace hub ({first_line(error)}): connect to the "
                    f"internet, or {_FOLDER_REMEDY}"
                ) from None
        self.files = {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}
        if any(not file.endswith(".parquet") for files in self.files.values() for file in files):
            raise DataUnavailable(f"{self.source} has other files than .parquet: read it with sgm.data.Images")
        if "train" not in self.files:
            raise DataUnavailable(f"{self.source} has no split 'train', only {list(self.files)}: {_FOLDER_REMEDY}")
        schema = schema_of(self.files["train"][0])
        self._features = builder.info.features or datasets.Features.from_arrow_schema(schema)

    @property
    def test(self) -> str | None:
        """Name of the stored split that is held out, None without one."""
        return _held_out(self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        image = image_column(self._features, self.source)
        return (image, label_column(self._features, self.source)) if self.classes else (image,)

    def groups(self, split: str) -> RowGroups:
        """The row groups of a stored split."""
        return RowGroups.of(self.files[split])

    def preparation(self, split: str, shape: tuple[int, ...], levels: int, background: str) -> "Preparation":
        """What makes pixels of a row of a stored split. The arguments are those of `Stored.prepare`."""
        return Preparation(
            where=f"split {split!r} of {self.source}",
            image_column=self.columns[0],
            shape=shape,
            levels=levels,
            background=background,
            label_column=self.columns[1] if self.classes else None,
            class_index={label: label for label in range(self._checked_classes)},
        )

    @property
    def _checked_classes(self) -> int:
        """Number of classes; 0 without."""
        if not self.classes:
            return 0
        feature = self._features[self.columns[1]]
        if isinstance(feature, datasets.ClassLabel):
            if len(feature.names) != self.classes:
                raise ValueError(
                    f"{self.source} has {len(feature.names)} classes, but classes is {self.classes}: give their number"
                )
        elif "int" not in getattr(feature, "dtype", ""):
            raise ValueError(
                f"{self.source} has labels of type {getattr(feature, 'dtype', feature)}, whose classes are not known "
                "before all are read: number them from 0, or leave classes at None"
            )
        return self.classes


def _source(name: str | None, path: str | None) -> str:
    return f"the folder {path}" if path is not None else f"the data set {name}"


def _held_out(splits: Collection[str]) -> str | None:
    return next((split for split in ("test", "validation") if split in splits), None)


def image_column(features: datasets.Features, source: str) -> str:
    """The first column of images. Raises DataUnavailable where there is none."""
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            return column
    raise DataUnavailable(f"{source} holds no images, only the columns {list(features)}: {_FOLDER_REMEDY}")


def label_column(features: datasets.Features, source: str) -> str:
    """The first column of class labels, or else that named label. Raises ValueError where there is none."""
    for column, feature in features.items():
        if isinstance(feature, datasets.ClassLabel):
            return column
    if "label" in features:
        return "label"
    raise ValueError(f"{source} has no labels, only the columns {list(features)}: leave classes at None")


@dataclasses.dataclass(frozen=True)
class Preparation:
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


_NO_CONNECTION = (httpx.HTTPError, ConnectionError, LocalEntryNotFoundError)


def _from_folder(path: str, load: Callable[[str], T]) -> T:
    folder = pathlib.Path(path).expanduser().resolve()
    if folder.is_file():
        raise DataUnavailable(f"{folder} is a file, not the folder {folder.parent} that holds it: {_FOLDER_REMEDY}")
    if not folder.is_dir():
        raise DataUnavailable(f"there is no folder {folder}: {_FOLDER_REMEDY}")
    try:
        return load(str(folder))
    except (DatasetsError, FileNotFoundError, ValueError) as error:
        raise DataUnavailable(f"the folder {folder} cannot be read ({first_line(error)}): {_FOLDER_REMEDY}") from None


def _from_hub(name: str, load: Callable[[str], T]) -> T:
    try:
        # loading alone would retry for half a minute before it gave up
        HfApi().dataset_info(name, timeout=_HUB_TIMEOUT)
        return load(name)
    except (RepositoryNotFoundError, DatasetNotFoundError, HFValidationError) as error:
        raise DataUnavailable(
            f"the HuggingFace hub has no data set {name!r} open to you ({first_line(error)}): correct the name, or "
            f"{_FOLDER_REMEDY}"
        ) from None


def _load_hub(name: str) -> Splits:
    try:
        return _from_hub(name, datasets.load_dataset)
    except _NO_CONNECTION as error:
        try:
            cached = Cache(repo_id=name, dataset_name=name.split("/")[-1], version="auto", hash="auto").as_dataset()
            assert isinstance(cached, datasets.DatasetDict), "no single split was asked for"
            return cached
        except ValueError:
            raise DataUnavailable(
                f"the data set {name!r} is neither on this computer nor to be had from the HuggingFace hub "
                f"({first_line(error)}): connect to the internet so that it can be downloaded once, or "
                f"{_FOLDER_REMEDY}"
            ) from None
