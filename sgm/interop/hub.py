"""Where a model is read from: a folder, or the HuggingFace hub."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgm.checks import check_instance
from sgm.options import ExperimentError

# Not every JSON: tokenizers, which are not read, have large ones.
_DESCRIPTIONS = ("*config.json", "model_index.json", "*.index*.json")


class HubError(Exception):
    """A model that the hub does not give, or does not take."""


NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""What the name of a model on the hub looks like."""


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

    def at(self, inside: str) -> str:
        """The name of a folder in it, for errors; "." is its own."""
        return str(self) if inside == "." else f"{self}/{inside}"


def find_source(path: str | Path, *, revision: str | None = None) -> Source:
    """Find a folder, or a model of the hub, of which the files that describe it are downloaded.

    Arguments:
        path: Path of a folder, or the name of a model, "user/name". A folder comes first, and so does one that is to be
            made: where there is a folder "runs", "runs/digits" is no model of the hub.
        revision: Branch, tag or commit of a model of the hub.

    Raises:
        TypeError: for what is no path.
        ExperimentError: for a folder that is not there.
        ValueError: for a revision of a folder.
        HubError: for a model that cannot be downloaded.
    """
    check_path("load", "path", path)
    folder, name = Path(path).expanduser(), str(path)
    if folder.exists() or NAME.fullmatch(name) is None or Path(name.partition("/")[0]).exists():
        if revision is not None:
            raise ValueError(f"load: revision = {revision!r}, but {path} is no model of the hub; leave it out.")
        if not folder.exists():
            why = 'which is no name of a model on the hub, as "user/name", either'
            if NAME.fullmatch(name) is not None:
                why = f"and since {name.partition('/')[0]} is a folder here, no model of the hub was looked for"
            raise ExperimentError(f"load: there is no folder {path}, {why}; correct the path.")
        return Source(folder)
    return Source(snapshot(name, _DESCRIPTIONS, revision=revision), name, revision)


def check_path(call: str, name: str, value: Any) -> None:
    """Raise TypeError for what is no path."""
    check_instance(call, name, value, str | Path, remedy='pass a path, as "models/maps"')


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
            f"({first_line(error)}); correct the name, or log in by `hf auth login` where the model is private."
        ) from None
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"load: the model {name} has no revision {revision!r} ({first_line(error)}); pass a branch, a tag or a "
            "commit that it has."
        ) from None
    except errors.LocalEntryNotFoundError as error:
        reason = f"the hub is out of reach: {first_line(error)}"
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else reason
        raise HubError(
            f"load: the model {name} is not in the cache of the HuggingFace hub, and cannot be downloaded ({reason}); "
            "load it once with a connection, or pass a folder that holds it."
        ) from None
    except (httpx.HTTPError, OSError) as error:
        raise HubError(
            f"load: the model {name} could not be downloaded from the HuggingFace hub ({first_line(error)}); try "
            "again, or pass a folder that holds it."
        ) from None


def first_line(error: Exception) -> str:
    """What an error says first, or its class where it says nothing."""
    return (str(error) or type(error).__name__).strip().split("\n")[0]
