"""Data sets of the HuggingFace hub, with a hub that is played by the test."""

import pathlib
import shutil

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import httpx
from pictures import encode, levels, numbered, unavailable, write_parquet

from sgm.data import Images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def hub(monkeypatch):
    """Sets what the hub answers when asked for a data set: an exception, or a DatasetDict to load."""

    def answer(outcome):
        def dataset_info(self, name, timeout):
            if isinstance(outcome, Exception):
                raise outcome

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", lambda name: outcome)

    return answer


def test_a_data_set_of_the_hub(hub):
    rows = {"img": [{"bytes": encode(picture), "path": None} for picture in numbered(3)]}
    split = datasets.Dataset.from_dict(rows, datasets.Features({"img": datasets.Image()}))
    hub(datasets.DatasetDict(train=split, test=split.select([2, 1])))
    assert levels(Images("someone/something", resolution=4).rows("test", 0, 2)) == [20, 10]


NO_NETWORK = httpx.ConnectError("[Errno -2] Name or service not known")


def test_no_network(hub):
    hub(NO_NETWORK)
    message = unavailable(Images("uoft-cs/cifar10"))
    assert message.startswith(
        "the data set 'uoft-cs/cifar10' is neither on this computer nor to be had from the HuggingFace hub ([Errno -2] "
        "Name or service not known): connect to the internet so that it can be downloaded once, or "
    )


def test_offline_mode(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # the switch is read when a session begins
    assert "offline mode is enabled" in unavailable(Images("uoft-cs/cifar10"))
    huggingface_hub.close_session()


def test_wrong_names(hub):
    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))
    hub(RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found", response=response))
    assert unavailable(Images("someone/nothing")).startswith(
        "the HuggingFace hub has no data set 'someone/nothing' open to you (404 Client Error.): correct the name, or "
    )


def test_malformed_name():
    assert "has no data set 'not a name!' open to you (Repo id must use" in unavailable(Images("not a name!"))


def test_a_data_set_downloaded_before_needs_no_network(hub, folder, tmp_path):
    write_parquet(folder / "train.parquet", numbered(3))
    split = datasets.load_dataset(str(folder), split="train")
    stored = pathlib.Path(split.cache_files[0]["filename"]).parent
    # Where and how the library keeps a data set of the hub: NAMESPACE___NAME/CONFIG/VERSION/HASH
    kept = tmp_path / "cache" / "someone___something" / "default" / "0.0.0" / "0123456789abcdef"
    shutil.copytree(stored, kept)
    for file in kept.glob("*.arrow"):
        file.rename(kept / file.name.replace("images-", "something-"))
    info = (kept / "dataset_info.json").read_text().replace('"dataset_name": "images"', '"dataset_name": "something"')
    (kept / "dataset_info.json").write_text(info)
    hub(NO_NETWORK)
    data = Images("someone/something", resolution=4, channels=1)
    assert sorted(levels(data.rows("train", 0, 3)) + levels(data.rows("test", 0, 3))) == [0, 10, 20]
