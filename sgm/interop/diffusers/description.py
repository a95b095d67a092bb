"""The files that describe a pipeline of diffusers, and which parts of it are read."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sgm.checks import check_instance
from sgm.interop.hub import Source

CONFIG = "config.json"
INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
STEM = "diffusion_pytorch_model"
NETWORK_PARTS = ("unet", "transformer")
"""Names that the network of a pipeline has."""


class Parts(NamedTuple):
    """Where the parts of a pipeline lie in its folder.

    Arguments:
        network: Folder of the network; "." where it is the pipeline's own.
        scheduler: File of the scheduler; None where there is none.
        others: Classes of the parts that are not read, by their names.
    """

    network: str
    scheduler: str | None
    others: dict[str, str]


def is_diffusers(folder: Path) -> bool:
    """Whether a folder has the description of a pipeline or of a model of diffusers."""
    if (folder / INDEX).is_file():
        return True
    return (folder / CONFIG).is_file() and "_class_name" in read_json(folder / CONFIG)


def find_parts(source: Source) -> Parts:
    """Find the parts of a pipeline, or of a model, which is one of a network alone.

    Arguments:
        source: Where it lies.

    Raises:
        ValueError: for a folder that holds none, and a pipeline without a network.
    """
    folder = source.folder
    if not folder.is_dir():
        raise ValueError(f"load: {source} is a file; pass the folder that it lies in.")
    if not is_diffusers(folder):
        raise ValueError(f"load: {source} has neither {INDEX} nor {CONFIG}; pass the folder of a model of diffusers.")
    places = (f"scheduler/{SCHEDULER}", SCHEDULER)
    scheduler = next((place for place in places if (folder / place).is_file()), None)
    if not (folder / INDEX).is_file():
        return Parts(".", scheduler, {})
    written = read_json(folder / INDEX)
    classes = {
        name: entry[1]
        for name, entry in written.items()
        if not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    }
    name = next((name for name in NETWORK_PARTS if name in classes), None)
    if name is None:
        raise ValueError(
            f"load: {source} is a {written.get('_class_name')} of {', '.join(classes)}, none of which is "
            f"{' or '.join(NETWORK_PARTS)}; pass a pipeline that has one."
        )
    if not (folder / name).is_dir() and not (folder / CONFIG).is_file():
        raise ValueError(
            f"load: by its {INDEX}, {source} has a folder {name}, which is missing; download it again, or restore it."
        )
    others = {part: cls for part, cls in classes.items() if part not in (name, "scheduler")}
    return Parts(name if (folder / name).is_dir() else ".", scheduler, others)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of JSON that describes something.

    Raises:
        ValueError: where it is none.
    """
    try:
        written = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; download it again, or restore it.") from None
    except ValueError as error:
        raise ValueError(f"{path}: it is not JSON ({error}); download it again, or restore it.") from None
    check_instance(str(path), "its content", written, dict, remedy="restore it")
    return written
