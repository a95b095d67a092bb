"""A process and a model in a folder of their own: weights as safetensors, all else as JSON, and a model card.

`config.json` describes the two by the constructors of their classes, `model.safetensors` has their arrays, by the path
to each: `model.network.inlet.kernel`. Nothing in the folder can run code.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgm.checks import check_instance
from sgm.evaluation import Report
from sgm.interop.card import write_card
from sgm.interop.folders import written_whole
from sgm.interop.hub import Source, check_path
from sgm.interop.tensor_files import map_tensors, write_tensors
from sgm.model.reverse import AbstractReverseModel, check_pair
from sgm.nn.frozen import Frozen
from sgm.nn.layers import Precision
from sgm.options import ExperimentError
from sgm.sde import AbstractProcess
from sgm.serial import from_json, to_json
from sgm.training.fingerprint import describe, differing, structure_of

FORMAT = 1
"""The format of what is written. It grows by one with every change that an earlier version could not read."""
_CONFIG = "config.json"
_TENSORS = "model.safetensors"
_PICTURES = "pictures"
FILES = (_CONFIG, _TENSORS, "README.md", f"{_PICTURES}/*.png")
"""Files that `save` writes, in which * stands for anything."""
_REMEDY = (
    "What is saved is built again from its constructor's arguments: use classes of the library, or subclasses of them "
    "that keep every argument under its name."
)


class SavedError(ValueError):
    """A saved model that cannot be read, or a model that cannot be saved."""


def save(
    folder: str | Path,
    sde: AbstractProcess,
    model: AbstractReverseModel,
    *,
    run: str | Path | None = None,
    report: Report | None = None,
    about: str = "",
    license: str | None = None,
) -> Path:
    """Save a process and a model in a folder, from which `sgm.load` reads them in this and every later version.

    The folder has `config.json`, `model.safetensors` and `README.md`, a model card for the HuggingFace hub. It is
    written whole or not at all, and over one that was saved before.

    Arguments:
        folder: Folder.
        sde: Process.
        model: Model, trained or exact, with or without a guidance.
        run: Folder of a run. The card shows the data, the training, the metrics and the pictures of one of the command
            line. Of one of `sgm.train` it shows the training, the shapes of a batch, and the losses.
        report: Report of `sgm.evaluate`, whose data, metrics and figures the card shows, in place of those of the run.
        about: What the card says first: what the model is of and for.
        license: Licence of the weights, by its name on the hub, such as "mit".

    Returns:
        The folder.

    Raises:
        SavedError: for a model that cannot be built from its description, such as one of a function, naming the part.
        ValueError: for a folder that holds something else.

    Example:
        >>> folder = sgm.save("maps", sde, model, about="Maps of 64 x 64 pixels.", license="mit")
        >>> sde, model = sgm.load("maps")
    """
    check_path("save", "folder", folder)
    check_pair("save", sde, model)
    if run is not None:
        check_path("save", "run", run)
    if report is not None:
        check_instance("save", "report", report, Report, remedy="pass what sgm.evaluate returns")
    check_instance("save", "about", about, str, "'Maps of 64 x 64 pixels.'")
    if license is not None:
        check_instance("save", "license", license, str, "'mit'")
    config, tensors = _described(sde, model)
    target = Path(folder).expanduser().absolute()
    with written_whole("save", target, _CONFIG, is_saved, (_PICTURES,)) as part:
        write_tensors(part / _TENSORS, tensors, {"format": "np"})
        write_card(
            part,
            target.name,
            config,
            model,
            run=None if run is None else Path(run),
            report=report,
            about=about,
            license=license,
        )
        (part / _CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
    return target


def is_saved(folder: Path) -> bool:
    """Whether `save` has written this folder."""
    try:
        config = json.loads((folder / _CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library") == "sgm"


def read_saved(source: Source, *, precision: Precision | None = None, progress: bool = True) -> tuple[Any, Any]:
    """Read what `save` has written.

    Arguments:
        source: Where it is: a folder, or a model of the hub.
        precision: Precision in which the networks compute, if they have that option; None for the one with which
            they were saved.
        progress: Whether a bar is shown.

    Returns:
        The process and the model.

    Raises:
        SavedError: for a folder of a later format, naming the version that reads it, for a damaged description, and
            for arrays that are not those of the description.
        ExperimentError: for a description of classes that are not there.
    """
    config = json.loads((source.folder / _CONFIG).read_text())
    kinds = {"format": (int, "a whole number"), "version": (str, "a version"), "sde": (dict, "a process")}
    for name, (kind, what) in (kinds | {"model": (dict, "a model")}).items():
        if type(config.get(name)) is not kind:
            found = f"{name} = {config[name]!r}, which is not {what}" if name in config else f"it has no {name}"
            raise SavedError(f"load: {source}/{_CONFIG}: {found}; restore it.")
    if config["format"] > FORMAT:
        raise SavedError(
            f"load: {source} was saved by sgm {config['version']}, in format {config['format']}, but this is sgm "
            f"{version('sgm')}, which reads format {FORMAT}; install sgm {config['version']} or later."
        )
    skeleton = _skeleton(config if precision is None else _with_precision(config, precision))
    path = source.with_files([_TENSORS]) / _TENSORS
    return _filled(skeleton, map_tensors([path]), path, progress)


def _described(sde, model):
    """The description of a process and a model, and their arrays by their names; checked to be all that they are."""
    config: dict[str, Any] = {"library": "sgm", "format": FORMAT, "version": version("sgm")}
    try:
        config |= {"sde": to_json(sde, "sde", whole=True), "model": to_json(model, "model", whole=True)}
        rebuilt = _skeleton(config)
    except (ExperimentError, ValueError, TypeError) as error:
        raise SavedError(f"save: {error} {_REMEDY}") from None
    for name, ours, theirs in (("sde", sde, rebuilt[0]), ("model", model, rebuilt[1])):
        if not _is_alike(ours, theirs):
            zeros = jax.tree.map(lambda leaf: _zeros(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, theirs)
            lines = differing(describe(zeros, structure_of), describe(ours, structure_of), name)
            raise SavedError(
                f"save: built from its options, the {type(ours).__name__} is another one: "
                f"{'; '.join(lines[:5]) or 'in what is no array'}. {_REMEDY}"
            )
    return config, {name: _numbers(leaf) for name, leaf in _named((sde, model)) if _is_array(leaf)}


def _skeleton(config):
    """The process and the model of a description, with shapes in the place of arrays."""

    def build():
        return (
            from_json(config["sde"], AbstractProcess, "sde", whole=True),
            from_json(config["model"], AbstractReverseModel, "model", whole=True),
        )

    return eqx.filter_eval_shape(build)


def _filled(skeleton, tensors, path, progress):
    from tqdm.auto import tqdm  # here, because it looks for a notebook when it is imported

    places = {name: leaf for name, leaf in _named(skeleton) if _is_array(leaf)}
    faults = {"missing": places.keys() - set(tensors), "of another model": set(tensors) - places.keys()}
    for what, names in faults.items():
        if names:
            raise SavedError(
                f"load: {path}: arrays {what}: {', '.join(sorted(names)[:8])}; restore it, so that it is "
                f"that of its {_CONFIG}."
            )
    found = {}
    for name, place in tqdm(places.items(), desc="load", unit="array", disable=not progress):
        tensor, shape = tensors[name], _shape(place)
        if tensor.shape != shape:
            raise SavedError(f"load: {path}: {name} has shape {tensor.shape}, but by {_CONFIG} {shape}; restore it.")
        found[name] = Frozen(tensor) if isinstance(place, Frozen) else jnp.array(tensor, copy=True)
    return _replaced(skeleton, found)


def _replaced(tree, found):
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_frozen)
    names = [name for name, _ in _named(tree)]
    return jax.tree.unflatten(structure, [found.get(name, leaf) for name, leaf in zip(names, leaves, strict=True)])


def _named(pair):
    """The leaves of a process and a model, with the path to each as its name."""
    named = []
    for part, tree in zip(("sde", "model"), pair, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_frozen):
            named.append((".".join([part, *(_word(key) for key in path)]), leaf))
    return named


def _word(key):
    name = next(getattr(key, name) for name in ("name", "idx", "key") if hasattr(key, name))
    return str(name).removeprefix("_")


def _is_alike(tree, skeleton):
    """Whether two trees are the same but for the numbers of their arrays."""
    (ours, structure), (theirs, other) = (jax.tree.flatten(part, is_leaf=_is_frozen) for part in (tree, skeleton))
    try:
        return structure == other and all(_matches(*leaves) for leaves in zip(ours, theirs, strict=True))
    except ValueError:  # Of arrays that are no leaves, which cannot be compared.
        return False


def _matches(leaf, other):
    if _is_array(leaf) and _is_array(other):
        return isinstance(leaf, Frozen) == isinstance(other, Frozen) and _shape(leaf) == _shape(other)
    return not _is_array(leaf) and not _is_array(other) and leaf == other


def _shape(leaf):
    return leaf.bits.shape if isinstance(leaf, Frozen) else leaf.shape


def _zeros(leaf):
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _numbers(leaf):
    return np.asarray(leaf.value if isinstance(leaf, Frozen) else leaf)


def _is_frozen(leaf):
    return isinstance(leaf, Frozen)


def _is_array(leaf):
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct | Frozen)


def _with_precision(written, precision):
    """The description in which every network computes in this precision."""
    if isinstance(written, list):
        return [_with_precision(part, precision) for part in written]
    if not isinstance(written, dict):
        return written
    parts = {name: _with_precision(part, precision) for name, part in written.items()}
    return parts | ({"precision": precision} if "precision" in written else {})
