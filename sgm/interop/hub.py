"""Models to and from the HuggingFace hub."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

# Not every JSON: tokenizers, which are not read, have large ones.
_DESCRIPTIONS = ("*config.json", "model_index.json", "*.index*.json")
_TOKEN_REMEDY = "log in by `hf auth login`, or pass a token of your account that may write"


class HubError(Exception):
    """A model that the hub does not give, or does not take."""


_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model is read from: a folder of this computer, or a model of the hub.

    Arguments:
        folder: Folder.
        name: Name of the model on the hub; None for a folder of this computer.
        revision: Revision of the model on the hub.
    """

    folder: Path
    name: str | None = None
    revision: str | None = None

    def with_files(self, names: Sequence[str]) -> Path:
        """The folder, once these files are in it too that the hub has."""
        if self.name is None:
            return self.folder
        return snapshot(self.name, [*_DESCRIPTIONS, *names], revision=self.revision)

    def __str__(self):
        return str(self.folder) if self.name is None else self.name


def find_source(path: str | Path, *, revision: str | None = None) -> Source:
    """Find a folder, or a model of the hub, of which the files that describe it are downloaded.

    Arguments:
        path: Path of a folder, or the name of a model, "user/name". A folder comes first, and so does one that is to be
            made: where there is a folder "runs", "runs/digits" is no model of the hub.
        revision: Branch, tag or commit of a model of the hub.

    Raises:
        ValueError: for a revision of a folder.
        HubError: for a model that cannot be downloaded.
    """
    folder, name = Path(path).expanduser(), str(path)
    if folder.exists() or _NAME.fullmatch(name) is None or Path(name.partition("/")[0]).exists():
        if revision is not None:
            raise ValueError(f"load: revision = {revision!r}, but {path} is no model of the hub; leave it out.")
        return Source(folder)
    return Source(snapshot(name, _DESCRIPTIONS, revision=revision), name, revision)


def snapshot(name: str, patterns: Sequence[str], *, revision: str | None = None) -> Path:
    """Download files of a model of the hub to its cache, where they are not there already.

    Without a network, and with HF_HUB_OFFLINE=1, the files are those of the cache.

    Arguments:
        name: Name of the model, "user/name".
        patterns: Names of the files, in which * stands for anything.
        revision: Branch, tag or commit; None for the main branch.

    Returns:
        The folder of the files.

    Raises:
        HubError: for a model that the hub does not have, and one that is not in the cache where the hub is out of
            reach.
    """
    from huggingface_hub import constants, errors, snapshot_download  # here, so that it is loaded when used
    from huggingface_hub.utils import httpx

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise HubError(
            f"load: there is no folder {name}, and no model of that name on the HuggingFace hub that is open to you "
            f"({_first_line(error)}); correct the name, or log in by `hf auth login` where the model is private."
        ) from None
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"load: the model {name} has no revision {revision!r} ({_first_line(error)}); pass a branch, a tag or a "
            "commit that it has."
        ) from None
    except errors.LocalEntryNotFoundError as error:
        reason = f"the hub is out of reach: {_first_line(error)}"
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else reason
        raise HubError(
            f"load: the model {name} is not in the cache of the HuggingFace hub, and cannot be downloaded ({reason}); "
            "load it once with a connection, or pass a folder that holds it."
        ) from None
    except (httpx.HTTPError, OSError) as error:
        raise HubError(
            f"load: the model {name} could not be downloaded from the HuggingFace hub ({_first_line(error)}); try "
            "again, or pass a folder that holds it."
        ) from None


def push(
    folder: str | Path, name: str, *, private: bool | None = None, token: str | None = None, message: str | None = None
) -> str:
    """Upload a saved model to the HuggingFace hub, from which `sgm.load("user/name")` loads it.

    Arguments:
        folder: Folder that `sgm.save` or `sgm.interop.diffusers.save` has written.
        name: Name of the model on the hub, "user/name". It is made where it is not there.
        private: Whether a new model is seen by its owner alone; None for what the owner has chosen on the hub.
        token: Token of an account that may write; None for that of `hf auth login`.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: for a folder that holds no saved model, and a name that is none of the hub.
        HubError: where no one is logged in, and for what the hub does not take.

    Example:
        >>> sgm.push(sgm.save("maps", sde, model), "someone/maps", private=True)
    """
    from huggingface_hub import HfApi, errors, get_token
    from huggingface_hub.utils import httpx

    path = Path(folder).expanduser()
    if not any((path / file).is_file() for file in ("config.json", "model_index.json")):
        raise ValueError(f"push: {path} holds no saved model; pass a folder that sgm.save has written.")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f'push: name = {name!r}; pass the name of a model on the hub, as "user/name".')
    if token is None and get_token() is None:
        raise HubError(f"push: no one is logged in to the HuggingFace hub; {_TOKEN_REMEDY}.")
    api = HfApi(token=token)
    patterns = ["*.json", "*.safetensors", "README.md", "pictures/*.png"]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=path, commit_message=message or "A model of sgm", allow_patterns=patterns
        )
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = _TOKEN_REMEDY if status in (401, 403) else "correct the name, or try again"
        raise HubError(f"push: the hub does not take {name} ({_first_line(error)}); {remedy}.") from None
    except (httpx.HTTPError, OSError) as error:
        raise HubError(f"push: the hub is out of reach ({_first_line(error)}); try again.") from None
    return commit.commit_url


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0]
