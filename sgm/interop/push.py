"""A saved model to the HuggingFace hub."""

import glob
from pathlib import Path

from sgm.checks import check_instance
from sgm.interop.diffusers.description import CONFIG, INDEX, STEM, find_parts, is_diffusers
from sgm.interop.hub import NAME, HubError, Source, check_path, first_line
from sgm.interop.saved import FILES, is_saved

_TOKEN_REMEDY = "log in by `hf auth login`, or pass a token of your account that may write"
# Of a part of a pipeline that is not read: what diffusers and transformers write for one without a tokenizer.
_OF_A_PART = (
    *(CONFIG, "preprocessor_config.json"),
    *(f"{stem}{end}" for stem in (STEM, "model") for end in ("*.safetensors", "*.safetensors*.json")),
)


def push(
    folder: str | Path, name: str, *, private: bool | None = None, token: str | None = None, message: str | None = None
) -> str:
    """Upload a saved model to the HuggingFace hub, from which `sgm.load("user/name")` loads it.

    The files of the model's format are uploaded, and no others that lie in the folder.

    Arguments:
        folder: Folder that `sgm.save` or `sgm.interop.diffusers.save` has written.
        name: Name of the model on the hub, "user/name". It is made where it is not there.
        private: Whether a new model is seen by its owner alone; None for what the owner has chosen on the hub.
        token: Token of an account that may write; None for that of `hf auth login`.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        TypeError: for what is no path, and no name.
        ValueError: for a folder that holds no saved model, and a name that is none of the hub.
        HubError: where no one is logged in, and for what the hub does not take.

    Example:
        >>> folder = sgm.save("maps", sde, model)
        >>> address = sgm.push(folder, "someone/maps", private=True)  # from where sgm.load("someone/maps") loads it
    """
    from huggingface_hub import HfApi, constants, errors, get_token  # here, so that it is loaded when used
    from huggingface_hub.utils import httpx

    check_path("push", "folder", folder)
    check_instance("push", "name", name, str, remedy='pass the name of a model on the hub, as "user/name"')
    path = Path(folder).expanduser()
    if not is_saved(path) and not is_diffusers(path):
        raise ValueError(f"push: {path} holds no saved model; pass a folder that sgm.save has written.")
    if NAME.fullmatch(name) is None:
        raise ValueError(f'push: name = {name!r}; pass the name of a model on the hub, as "user/name".')
    if constants.HF_HUB_OFFLINE:
        raise HubError("push: HF_HUB_OFFLINE is set, so that nothing is uploaded; unset it.")
    if token is None and get_token() is None:
        raise HubError(f"push: no one is logged in to the HuggingFace hub; {_TOKEN_REMEDY}.")
    api = HfApi(token=token)
    files = [glob.escape(file) for file in _files(path)]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=path, commit_message=message or "A model of sgm", allow_patterns=files
        )
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = _TOKEN_REMEDY if status in (401, 403) else "correct the name, or try again"
        raise HubError(f"push: the hub does not take {name} ({first_line(error)}); {remedy}.") from None
    except (httpx.HTTPError, OSError) as error:
        raise HubError(f"push: the hub is out of reach ({first_line(error)}); try again.") from None
    return commit.commit_url


def _files(folder):
    """The files of a saved model, by their paths in its folder: those of its format, and no others."""
    if is_saved(folder):
        patterns = FILES
    else:
        parts = find_parts(Source(folder))
        network = (CONFIG, f"{STEM}*.safetensors", f"{STEM}*.safetensors*.json")
        patterns = (
            *("README.md", INDEX, *([parts.scheduler] if parts.scheduler else [])),
            *(f"{parts.network}/{name}" for name in network),
            *(f"{glob.escape(part)}/{name}" for part in parts.others for name in _OF_A_PART),
        )
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder).as_posix() for path in found)
