"""The folder of a model of diffusers, or of a pipeline, as a process, a model and a scheduler."""

import inspect
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.random as jr
import numpy as np

from sgm.checks import check_instance
from sgm.interop.adm.unet import UNetModel
from sgm.interop.diffusers.dit import DiTTransformer2DModel
from sgm.interop.diffusers.old_names import ModernNames
from sgm.interop.diffusers.scheduler import read_scheduler
from sgm.interop.diffusers.unet import UNet2DModel
from sgm.interop.edm.dhariwal_unet import DhariwalUNet
from sgm.interop.edm.song_unet import SongUNet
from sgm.interop.hub import Source, find_source
from sgm.interop.tensor_files import map_tensors
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.scheduled import Scheduler
from sgm.interop.timestep.tensors import from_tensors
from sgm.model import ScoreModel
from sgm.nn.layers import Precision
from sgm.nn.units import Units
from sgm.sde import AbstractSDE

CONFIG = "config.json"
INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
STEM = "diffusion_pytorch_model"
NETWORKS: tuple[type[AbstractTimestepNetwork], ...] = (
    *(UNet2DModel, DiTTransformer2DModel),
    *(UNetModel, SongUNet, DhariwalUNet),
)
"""The networks that a config.json can name."""
_NETWORKS = ("unet", "transformer")
_ENCODERS = ("vae", "vqvae", "movq")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Loaded(NamedTuple):
    """What a folder of diffusers holds.

    Arguments:
        sde: Process.
        model: Model. It is not clipped, so that it has a likelihood.
        scheduler: Scheduler, whose `sampler` draws samples of `sampled(model)`, as diffusers does.
    """

    sde: AbstractSDE
    model: ScoreModel
    scheduler: Scheduler


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


def load(
    path: str | Path,
    *,
    scheduler: str | Path | Mapping[str, Any] | None = None,
    units: Units | None = None,
    variant: str | None = None,
    revision: str | None = None,
    dtype: Any = np.float32,
    precision: Precision = "float32",
    progress: bool = True,
) -> Loaded:
    """Load a model of HuggingFace diffusers, without torch.

    Of a pipeline, the network and the scheduler are loaded. What else it has is named by a warning: where it has an
    autoencoder, process and model are of its latents.

    Arguments:
        path: Folder of a pipeline or of a model, or the name of one on the HuggingFace hub, as
            "google/ddpm-cifar10-32". Weights are read from `*.safetensors` alone.
        scheduler: Scheduler in the place of the pipeline's: its configuration, or the path of that, or of its folder. A
            model's folder has none, so that it must be given.
        units: Units of the data, such as `Units.of_levels(256)`; None for those of the network, most often images in
            [-1, 1].
        variant: Variant of the files of weights, such as "fp16".
        revision: Branch, tag or commit of a model of the hub.
        dtype: Precision of the weights; None for that of the files.
        precision: Precision in which the network computes.
        progress: Whether a bar is shown.

    Returns:
        The process, the model and the scheduler.

    Raises:
        ValueError: for a class, a field or a scheduler that is not known, weights that are pickles, and tensors that
            are missing, extra or of another shape, naming them.
        HubError: for a model that cannot be downloaded.

    Example:
        >>> sde, model, scheduler = load("google/ddpm-cifar10-32")
        >>> x = sgm.sample(sde, scheduler.sampled(model), jr.key(0), 16, method=scheduler.sampler)
    """
    source = find_source(path, revision=revision)
    options = {"units": units, "variant": variant, "dtype": dtype, "precision": precision, "progress": progress}
    return load_source(source, scheduler=scheduler, **options)


def load_source(
    source: Source,
    *,
    scheduler: str | Path | Mapping[str, Any] | None = None,
    units: Units | None = None,
    variant: str | None = None,
    dtype: Any = np.float32,
    precision: Precision = "float32",
    progress: bool = True,
) -> Loaded:
    """`load` from what `find_source` has found."""
    parts = find_parts(source)
    where, config = _scheduler_config(source, parts, scheduler)
    # The scheduler first: a mistake in it is told before gigabytes are read.
    process = read_scheduler(config, where)
    model = process.model(_network(source, parts.network, variant, dtype, progress), units, precision)
    if parts.others:
        warnings.warn(_left_out(source, parts), stacklevel=3)
    return Loaded(process.sde, model, process)


def load_network(
    path: str | Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    dtype: Any = np.float32,
    progress: bool = True,
) -> AbstractTimestepNetwork:
    """Load the network alone of a model of diffusers, a function of a noisy example and a timestep.

    Arguments:
        path, variant, revision, dtype, progress: As those of `load`.

    Returns:
        The network.

    Raises:
        ValueError: as `load` does.
        HubError: as `load` does.

    Example:
        >>> network = sgm.interop.diffusers.load_network("my_unet")
        >>> noise = network(x, jnp.asarray(400.0))
    """
    source = find_source(path, revision=revision)
    return _network(source, find_parts(source).network, variant, dtype, progress)


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
        raise ValueError(f"load: there is no folder {source}; pass the folder of a model, not one of its files.")
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
    name = next((name for name in _NETWORKS if name in classes), None)
    if name is None:
        raise ValueError(
            f"load: {source} is a {written.get('_class_name')} of {', '.join(classes)}, none of which is "
            f"{' or '.join(_NETWORKS)}; pass a pipeline that has one."
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


def _scheduler_config(source, parts, scheduler):
    if isinstance(scheduler, Mapping):
        return "scheduler", dict(scheduler)
    if scheduler is not None:
        path = Path(scheduler).expanduser()
        places = (path / f"scheduler/{SCHEDULER}", path / SCHEDULER)
        path = next((place for place in places if place.is_file()), path)
        return str(path), read_json(path)
    if parts.scheduler is not None:
        return f"{source}/{parts.scheduler}", read_json(source.folder / parts.scheduler)
    remedy = "pass scheduler=, the path of a scheduler_config.json"
    if (source.folder.parent / INDEX).is_file():
        remedy = f"pass the folder of its pipeline, {source.folder.parent}"
    raise ValueError(
        f"load: {source} is a network without a scheduler, which says of which process it is; {remedy}, or load the "
        "network alone by sgm.interop.diffusers.load_network."
    )


def _network(source, inside, variant, dtype, progress):
    where = f"{source}/{CONFIG}" if inside == "." else f"{source}/{inside}/{CONFIG}"
    written = read_json(source.folder / inside / CONFIG)
    cls = _class_named(written.get("_class_name"), where)
    skeleton = _skeleton(cls, written, where)
    tensors = ModernNames(map_tensors(_weights(source, inside, variant, cls.__name__)))
    return from_tensors(skeleton, tensors, where.removesuffix(f"/{CONFIG}"), dtype=dtype, progress=progress)


def _class_named(name, where):
    known = {cls.__name__: cls for cls in NETWORKS}
    if name not in known:
        raise ValueError(
            f"{where}: it is of the class {name}, which is not known here; known are {', '.join(sorted(known))}."
        )
    return known[name]


def _skeleton(cls, written, where):
    """The network of a config.json, with shapes in the place of arrays."""
    fields = {name: _as_tuple(value) for name, value in written.items() if not name.startswith("_")}
    known = inspect.signature(cls).parameters.keys() - {"key"}
    if unknown := fields.keys() - known:
        raise ValueError(
            f"{where}: {cls.__name__} has no field {', '.join(sorted(unknown))} here; what it changes is not known. "
            "Remove it where it changes nothing."
        )
    try:
        return eqx.filter_eval_shape(lambda: cls(**fields, key=jr.key(0)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _as_tuple(value):
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _weights(source, inside, variant, cls):
    """The files of a network's weights."""
    folder, middle = source.folder / inside, "" if variant is None else f".{variant}"
    # The second and the third were written by earlier releases.
    names = {f"{STEM}.safetensors.index{middle}.json", f"{STEM}{middle}.safetensors.index.json"}
    names.add(f"{STEM}.safetensors{middle}.index.json")
    index = next((folder / name for name in sorted(names) if (folder / name).is_file()), None)
    files = [f"{STEM}{middle}.safetensors"] if index is None else _shards(index)
    wanted = [file if inside == "." else f"{inside}/{file}" for file in files]
    folder = source.with_files(wanted) / inside
    if all((folder / file).is_file() for file in files):
        return [folder / file for file in files]
    raise ValueError(f"load: {_no_weights(source, folder, files, variant, cls)}")


def _shards(index):
    names = sorted(set(read_json(index)["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index}: it names the file {name}, which lies elsewhere; restore it.")
    return names


def _no_weights(source, folder, files, variant, cls):
    missing = [file for file in files if not (folder / file).is_file()]
    wanted = f"{source} has no {missing[0]}"
    variants = sorted({path.name.split(".")[1].split("-")[0] for path in folder.glob(f"{STEM}.*.safetensors")})
    if len(files) == 1 and variants and variant not in variants:
        return f"{wanted}; pass variant={variants[0]!r}, which it has."
    if len(files) == 1 and variant is not None and (folder / f"{STEM}.safetensors").is_file():
        return f"{wanted}; leave variant out, since it has none."
    pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in _PICKLES]
    if pickles and pickles[0].endswith(".bin"):
        place = str(folder)
        return (
            f"{wanted}, but {pickles[0]}, a pickle, which can run code when it is read. Convert it once, where torch "
            f"and diffusers are installed: from diffusers import {cls}; {cls}.from_pretrained({place!r}, "
            f"use_safetensors=False).save_pretrained({place!r}, safe_serialization=True)"
        )
    if pickles:
        return (
            f"{wanted}, but {pickles[0]}, a pickle, which can run code when it is read. Convert it once, where torch "
            "is installed: import torch, safetensors.torch; safetensors.torch.save_file("
            f"torch.load({str(folder / pickles[0])!r}, weights_only=True), {str(folder / files[0])!r})"
        )
    if source.name is not None:
        return (
            f"{wanted}. Where its weights are a .bin alone, that is a pickle, which is not read: pass a revision with "
            f"safetensors, or convert it where torch and diffusers are installed, by {cls}.from_pretrained("
            f"{source.name!r}, use_safetensors=False).save_pretrained(folder), and load that folder."
        )
    return f"{wanted}; download it again, or restore it."


def _left_out(source, parts):
    head = "load: not loaded of"
    listed = ", ".join(f"{name} ({cls})" for name, cls in parts.others.items())
    encoder = next((name for name in _ENCODERS if name in parts.others), None)
    if encoder is None:
        return f"{head} {source}: {listed}."
    path = source.folder / encoder / CONFIG
    factor = read_json(path).get("scaling_factor") if path.is_file() else None
    scaled = "" if factor is None else f", times its scaling factor {factor}"
    return f"{head} {source}: {listed}. Process and model are of the latents of its {encoder}{scaled}."
