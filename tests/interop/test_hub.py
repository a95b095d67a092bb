"""Models from and to a hub that is played by the test."""

import fnmatch
import pathlib
import shutil
from typing import ClassVar

import equinox as eqx
import huggingface_hub
import jax.numpy as jnp
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import httpx
from interop.diffusers.pipelines import INDEX, random_network, write, write_pipeline

import sgm
from sgm.interop import diffusers
from sgm.interop.hub import HubError
from sgm.model import Gaussian

MODEL = Gaussian(jnp.asarray([1.0, 2.0]), jnp.asarray([[2.0, 0.3], [0.3, 1.0]]))


class Hub:
    """What there is on the hub, what was asked of it, and an error that it gives in place of an answer."""

    def __init__(self, remote, cache):
        self.remote, self.cache, self.asked, self.error = remote, cache, [], None

    def snapshot_download(self, repo_id, *, revision=None, allow_patterns):
        self.asked.append((repo_id, revision, allow_patterns))
        if self.error is not None:
            raise self.error
        for path in sorted((self.remote / repo_id).rglob("*")):
            name = str(path.relative_to(self.remote / repo_id))
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self.cache / name)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub = Hub(tmp_path / "remote", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def test_a_saved_model_is_loaded_by_its_name(hub):
    folder = sgm.save(hub.remote / "someone" / "maps", sgm.VP(), MODEL)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.pkl").write_bytes(b"")
    sde, model = sgm.load("someone/maps", revision="v1", progress=False)
    assert eqx.tree_equal((sde, model), (sgm.VP(), MODEL))
    assert {name for name, _, _ in hub.asked} == {"someone/maps"} and {tag for _, tag, _ in hub.asked} == {"v1"}
    assert sorted(path.name for path in hub.cache.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_of_that_name_comes_first(hub, tmp_path):
    sgm.save(tmp_path / "someone" / "maps", sgm.VP(), MODEL)
    sgm.load("someone/maps", progress=False)
    # Nor is a run that is still to be made looked for on the hub.
    with pytest.raises(
        ValueError,
        match=r"load: there is no folder someone/others, and since someone is a folder here, no model of the hub",
    ):
        sgm.load("someone/others")
    assert hub.asked == []


RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found", response=RESPONSE),
            r"there is no folder someone/maps, and no model of that name .* \(404 Client Error.\); correct the name",
        ),
        (errors.RevisionNotFoundError("404", response=RESPONSE), r"someone/maps has no revision 'v2' \(404\); pass a"),
        (
            errors.LocalEntryNotFoundError("An error happened"),
            r"is not in the cache .* \(the hub is out of reach: An error happened\); load it once with a connection",
        ),
        (httpx.ConnectError("[Errno -2] Name or service not known"), r"could not be downloaded .* \(\[Errno -2\] Name"),
    ],
)
def test_what_the_hub_does_not_give_is_said(hub, error, message):
    hub.error = error
    with pytest.raises(HubError, match=message) as raised:
        sgm.load("someone/maps", revision="v2")
    assert "\n" not in str(raised.value)


def test_offline_without_the_model_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()  # the switch is read when a session begins
    with pytest.raises(HubError, match=r"someone/maps is not in the cache .*\(HF_HUB_OFFLINE is set\); load it once"):
        sgm.load("someone/maps")
    huggingface_hub.close_session()


class Api:
    """The uploading half of the hub."""

    calls: ClassVar[list] = []
    error: ClassVar[Exception | None] = None

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.error is not None:
            raise self.error
        self.calls.append((repo_id, private, exist_ok, self.token))

    def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns):
        names = [str(path.relative_to(folder_path)) for path in pathlib.Path(folder_path).rglob("*") if path.is_file()]
        kept = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns)]
        self.calls.append((repo_id, sorted(kept), commit_message))
        return huggingface_hub.CommitInfo(
            commit_url=f"https://huggingface.co/{repo_id}/commit/1", commit_message="", commit_description="", oid="1"
        )


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(Api, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_stored")
    return Api


def test_a_saved_model_is_pushed(tmp_path, api):
    folder = sgm.save(tmp_path / "maps", sgm.VP(), MODEL)
    (folder / "pictures").mkdir()
    for name in ("pictures/samples.png", "notes.txt", ".env", "weights.pkl"):
        (folder / name).write_text("")
    address = sgm.push(folder, "someone/maps", private=True, token="hf_given", message="First")
    assert address == "https://huggingface.co/someone/maps/commit/1"
    files = ["README.md", "config.json", "model.safetensors", "pictures/samples.png"]
    assert api.calls == [("someone/maps", True, True, "hf_given"), ("someone/maps", files, "First")]


def uploaded(api, folder):
    sgm.push(folder, "someone/maps")
    return api.calls[-1][1]


def test_only_files_of_the_format_are_pushed(tmp_path, api):
    saved = sgm.save(tmp_path / "maps", sgm.VP(), MODEL)
    pipeline = write_pipeline(tmp_path / "pipeline", random_network())
    for folder in (saved, pipeline):
        for name in (
            "keys.json",
            "private/keys.json",
            "private/pictures/me.png",
            "unet/optimizer.bin",
            "a.safetensors",
        ):
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_text("{}")
    assert uploaded(api, saved) == ["README.md", "config.json", "model.safetensors"]
    files = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]
    assert uploaded(api, pipeline) == [*files, "unet/diffusion_pytorch_model.safetensors"]
    write(pipeline / "model_index.json", INDEX | {"vae": ["diffusers", "AutoencoderKL"]})
    for name in ("config.json", "diffusion_pytorch_model.safetensors", "keys.json"):
        write(pipeline / "vae" / name, {})
    files += ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    assert uploaded(api, pipeline) == files


def test_pictures_of_before_are_not_pushed(tmp_path, api):
    folder = sgm.save(tmp_path / "maps", sgm.VP(), MODEL)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "of_another.png").write_text("")
    sgm.save(folder, sgm.VP(), MODEL)
    assert uploaded(api, folder) == ["README.md", "config.json", "model.safetensors"]


def test_offline_nothing_is_pushed(tmp_path, api, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"push: HF_HUB_OFFLINE is set, so that nothing is uploaded; unset it\."):
        sgm.push(sgm.save(tmp_path / "maps", sgm.VP(), MODEL), "someone/maps")
    assert api.calls == []


def test_what_is_not_there_is_said_to_be_so(hub, tmp_path):
    with pytest.raises(ValueError, match=r'there is no folder nofolder, which is no name of a model .* "user/name"'):
        sgm.load("nofolder")
    assert hub.asked == []


WRONG = [
    (lambda: sgm.load(3), "load: path = 3; pass a path"),
    (lambda: sgm.push(3, "someone/maps"), "push: folder = 3; pass a path"),
    (lambda: sgm.push("maps", 3), 'push: name = 3; pass the name of a model on the hub, as "user/name"'),
    (lambda: sgm.save(3, sgm.VP(), MODEL), "save: folder = 3; pass a path"),
    (lambda: sgm.save("maps", sgm.VP(), MODEL, run=3), "save: run = 3; pass a path"),
    (lambda: sgm.save("maps", sgm.VP(), MODEL, report={}), "save: report is a dict; pass what sgm.evaluate returns"),
    (lambda: sgm.save("maps", sgm.VP(), MODEL, about=3), "save: about = 3; pass an instance such as 'Maps"),
    (lambda: sgm.save("maps", sgm.VP(), MODEL, license=3), "save: license = 3; pass an instance such as 'mit'"),
    (lambda: diffusers.load("maps", units=3), r"load: units = 3; pass an instance such as sgm.Units.of_levels\(256\)"),
    (lambda: diffusers.load("maps", scheduler=3), "load: scheduler = 3; pass a configuration"),
    (lambda: diffusers.load_network(3), "load: path = 3; pass a path"),
    (lambda: diffusers.save("maps", sgm.VP(), MODEL, like=3), "diffusers.save: like = 3; pass a path"),
    (lambda: diffusers.save_network(3, MODEL), "save_network: folder = 3; pass a path"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
@pytest.mark.usefixtures("types_unchecked")
def test_arguments_of_another_type_are_named(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_pushed_is_said(tmp_path, api, monkeypatch):
    folder = sgm.save(tmp_path / "maps", sgm.VP(), MODEL)
    with pytest.raises(ValueError, match=r"push: .* holds no saved model; pass a folder that sgm.save has written"):
        sgm.push(tmp_path, "someone/maps")
    write(tmp_path / "config.json", {"model_type": "bert"})
    with pytest.raises(ValueError, match=r"push: .* holds no saved model"):
        sgm.push(tmp_path, "someone/maps")
    with pytest.raises(ValueError, match="push: name = 'maps'; pass the name of a model on the hub"):
        sgm.push(folder, "maps")
    response = httpx.Response(403, request=httpx.Request("POST", "https://huggingface.co"))
    monkeypatch.setattr(Api, "error", errors.HfHubHTTPError("403 Forbidden: no rights", response=response))
    with pytest.raises(HubError, match=r"does not take someone/maps \(403 Forbidden.*\); log in by `hf auth login`"):
        sgm.push(folder, "someone/maps")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(HubError, match=r"push: no one is logged in to the HuggingFace hub; log in by `hf auth login`"):
        sgm.push(folder, "someone/maps")
    assert api.calls == []
