"""The folder of a model of diffusers, or of a pipeline, as a process, a model and a scheduler."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgm.checks import check_instance
from sgm.interop.diffusers.description import CONFIG, INDEX, SCHEDULER, find_parts, read_json
from sgm.interop.diffusers.network_config import skeleton_of_config
from sgm.interop.diffusers.old_names import ModernNames
from sgm.interop.diffusers.scheduler import read_scheduler
from sgm.interop.diffusers.weights import find_weights
from sgm.interop.hub import Source, find_source
from sgm.interop.tensor_files import map_tensors
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.scheduled import Scheduler
from sgm.interop.timestep.tensors import check_dtype, from_tensors
from sgm.model import ScoreModel
from sgm.nn.layers import Precision, check_options
from sgm.nn.units import Units
from sgm.sde import AbstractSDE

_ENCODERS = ("vae", "vqvae", "movq")


class Loaded(NamedTuple):
    """What a folder of diffusers holds.

    Arguments:
        sde: Process.
        model: Model. It is not clipped, so that it has a likelihood.
        scheduler: Scheduler, whose `sampler` draws samples of `sampled(model)`, as diffusers does.

    Example:
        >>> network = DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, key=key)
        >>> loaded = load(save_network("dit", network), scheduler={"_class_name": "DDIMScheduler"})
        >>> loaded.sde.steps, loaded.model.shape, loaded.scheduler.sampler.eta
        (1000, (8, 8, 4), 0.0)
    """

    sde: AbstractSDE
    model: ScoreModel
    scheduler: Scheduler


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
        dtype: Precision of the weights: float32, float16 or bfloat16; None for that of the files.
        precision: Precision in which the network computes.
        progress: Whether a bar is shown.

    Returns:
        The process, the model and the scheduler.

    Raises:
        ValueError: for a class, a field or a scheduler that is not known, weights that are pickles, and tensors that
            are missing, extra or of another shape, naming them; for another precision; and for a folder of this
            computer that has weights twice, in one file and in those that an index lists.
        HubError: for a model that cannot be downloaded.

    Example:
        >>> network = DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, key=key)
        >>> folder = save_network("dit", network)  # a pipeline, as "google/ddpm-cifar10-32", has a scheduler
        >>> sde, model, scheduler = load(folder, scheduler={"_class_name": "DDIMScheduler"})
        >>> drawn_by, method = scheduler.sampled(model), scheduler.sampler_of(20)  # for sgm.sample
    """
    check_dtype("load", dtype)
    if units is not None:
        check_instance("load", "units", units, Units, "sgm.Units.of_levels(256)")
    if scheduler is not None:
        remedy = 'pass a configuration, as {"_class_name": "DDIMScheduler"}, or the path of one'
        check_instance("load", "scheduler", scheduler, str | Path | Mapping, remedy=remedy)
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
    check_options("load", 0.0, precision)
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
        >>> folder = save_network("dit", DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, key=key))
        >>> network = load_network(folder)
        >>> noise = eqx.filter_jit(network)(jnp.zeros((8, 8, 4)), timestep=jnp.asarray(400.0))
    """
    check_dtype("load_network", dtype)
    source = find_source(path, revision=revision)
    return _network(source, find_parts(source).network, variant, dtype, progress)


def _scheduler_config(source, parts, scheduler):
    if isinstance(scheduler, Mapping):
        return "scheduler", dict(scheduler)
    if scheduler is not None:
        path = Path(scheduler).expanduser()
        places = (path / f"scheduler/{SCHEDULER}", path / SCHEDULER)
        path = next((place for place in places if place.is_file()), path)
        if not path.is_file():
            raise ValueError(
                f"load: scheduler = {str(scheduler)!r}, where there is no {SCHEDULER}; pass its path, or a "
                'configuration such as {"_class_name": "DDIMScheduler"}.'
            )
        return str(path), read_json(path)
    if parts.scheduler is not None:
        return f"{source}/{parts.scheduler}", read_json(source.folder / parts.scheduler)
    remedy = "pass scheduler=, the path of a scheduler_config.json"
    if (source.folder.parent / INDEX).is_file():
        remedy = f"pass the folder of its pipeline, {source.folder.parent}"
    raise ValueError(
        f"load: {source} is a network without a scheduler, which would say its process; {remedy}, or load the "
        "network alone by sgm.interop.diffusers.load_network."
    )


def _network(source, inside, variant, dtype, progress):
    where = source.at(inside)
    written = read_json(source.folder / inside / CONFIG)
    skeleton = skeleton_of_config(written, f"{where}/{CONFIG}")
    tensors = ModernNames(map_tensors(find_weights(source, inside, variant, type(skeleton))))
    return from_tensors(skeleton, tensors, where, dtype=dtype, progress=progress)


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
