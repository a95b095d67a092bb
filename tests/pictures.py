"""Small images in files, for tests of data sets of images."""

import io

import datasets
import PIL.Image
import pytest

from sgm.data import DataUnavailable


def numbered(count, size=4):
    """`count` constant grey images: image i has the level 10 * i."""
    return [PIL.Image.new("L", (size, size), 10 * i) for i in range(count)]


def encode(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_parquet(file, pictures, labels=None, column="image", label_column="label"):
    columns = {column: [{"bytes": encode(picture), "path": None} for picture in pictures]}
    features = {column: datasets.Image()}
    if labels is not None:
        columns[label_column] = labels
        kind = datasets.Value("string") if isinstance(labels[0], str) else datasets.ClassLabel(names=["a", "b", "c"])
        features[label_column] = kind
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(file)


def levels(record):
    return record[0][:, 0, 0, 0].tolist()


def unavailable(data):
    """The message of a data set that can not be had; always one line that ends with the remedy."""
    with pytest.raises(DataUnavailable) as caught:
        data.size("train")
    message = str(caught.value)
    assert message.endswith("give a folder of parquet or image files as path")
    assert "\n" not in message
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    return message
