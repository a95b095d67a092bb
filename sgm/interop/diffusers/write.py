"""Networks and pipelines in diffusers' own layout."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_instance
from sgm.interop.diffusers.description import (
    CONFIG,
    INDEX,
    NETWORK_PARTS,
    SCHEDULER,
    STEM,
    find_parts,
    is_diffusers,
    read_json,
)
from sgm.interop.diffusers.scheduler import read_scheduler
from sgm.interop.folders import written_whole
from sgm.interop.hub import check_path, find_source
from sgm.interop.tensor_files import write_tensors
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.of_timesteps import OfTimesteps
from sgm.interop.timestep.tensors import check_dtype, to_tensors
from sgm.model import AbstractModel, ScoreModel
from sgm.model.base import AbstractWrapper, check_process_and_model
from sgm.sde import AbstractSDE
from sgm.serial import to_json

# Whose layout it is.
_RELEASE = "0.42.1"


def save(folder: str | Path, sde: AbstractSDE, model: AbstractModel, *, like: str | Path, dtype: Any = None) -> Path:
    """Save a model that was loaded from a pipeline of diffusers, and perhaps trained on, as such a pipeline.

    Its weights are written anew, and its scheduler is copied; those that the folder has are replaced. Parts that are
    not loaded, such as an autoencoder, are left out and named by a warning: copy their folders. The units of the model
    and its guidance have no place there.

    Arguments:
        folder: Folder that is written, whole or not at all.
        sde: Process.
        model: Model.
        like: Folder or name on the hub of the pipeline that the model was loaded from.
        dtype: Precision of the weights: "float32", "float16" or "bfloat16"; None for that of the model.

    Returns:
        The folder.

    Raises:
        TypeError: for what is no path.
        ValueError: for a model that is none of diffusers, another precision, a process or a prediction that is not that
            of the pipeline, and a folder that holds something else.

    Example:
        >>> sde, model, scheduler = sgm.interop.diffusers.load("ddpm")
        >>> folder = sgm.interop.diffusers.save("ours", sde, model, like="ddpm")  # after further training
    """
    call = "diffusers.save"
    check_path(call, "folder", folder)
    check_path(call, "like", like)
    check_process_and_model(call, sde, model)
    check_dtype(call, dtype)
    plain = _plain(call, model)
    network = plain.network.network
    source = find_source(like)
    parts, original = find_parts(source), source.folder
    if parts.scheduler is None:
        raise ValueError(
            f"{call}: {like} has no scheduler; pass the folder of a pipeline, or save the network alone by "
            "sgm.interop.diffusers.save_network."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of samplers, which are not written.
        process = read_scheduler(read_json(original / parts.scheduler), f"{like}/{parts.scheduler}")
    read = process.model(network)
    pairs = {
        "process": (sde, process.sde),
        "prediction": (plain.prediction, read.prediction),
        "timestep": (plain.network.timesteps, read.network.timesteps),
    }
    for name, (ours, theirs) in pairs.items():
        if not eqx.tree_equal(ours, theirs):
            raise ValueError(
                f"{call}: by the scheduler of {like}, the {name} is another than the model's {type(ours).__name__}; "
                "pass the pipeline that the model was loaded from, or save it by sgm.save."
            )
    target = Path(folder).expanduser()
    last = INDEX if (original / INDEX).is_file() else CONFIG
    # An index or a folder of a network of before would be read in the place of what is written.
    stale = (f"{STEM}*", *NETWORK_PARTS, "scheduler", SCHEDULER)
    with written_whole(call, target, last, is_diffusers, stale) as part:
        for name in (INDEX, parts.scheduler):
            if (original / name).is_file():
                (part / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(original / name, part / name)
        _write_network(part / parts.network, network, dtype)
    if parts.others:
        listed = ", ".join(f"{name} ({cls})" for name, cls in parts.others.items())
        warnings.warn(f"{call}: not written to {target}: {listed}; copy them from {original}.", stacklevel=2)
    return target


def save_network(folder: str | Path, model: AbstractModel | AbstractTimestepNetwork, *, dtype: Any = None) -> Path:
    """Save a network as diffusers does, in `config.json` and `diffusion_pytorch_model.safetensors`.

    Arguments:
        folder: Folder that is written, whole or not at all.
        model: Network, or a model of one.
        dtype: Precision of the weights: "float32", "float16" or "bfloat16"; None for that of the model.

    Returns:
        The folder.

    Raises:
        TypeError: for what is no path.
        ValueError: for a model that is none of diffusers, another precision, and a folder that holds something else.

    Example:
        >>> network = DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, key=key)
        >>> folder = save_network("dit", network)  # with torch: diffusers.DiTTransformer2DModel.from_pretrained("dit")
        >>> sorted(path.name for path in folder.iterdir())
        ['config.json', 'diffusion_pytorch_model.safetensors']
    """
    call = "save_network"
    check_path(call, "folder", folder)
    check_dtype(call, dtype)
    network = model if isinstance(model, AbstractTimestepNetwork) else _plain(call, model).network.network
    target = Path(folder).expanduser()
    with written_whole(call, target, CONFIG, _is_network, (f"{STEM}*",)) as part:
        _write_network(part, network, dtype)
    return target


def _is_network(folder):
    return is_diffusers(folder) and not (folder / INDEX).is_file()


def _plain(call, model) -> Any:
    """The model itself, without a guidance: of a network of diffusers."""
    check_instance(call, "model", model, AbstractModel, "one that sgm.load has loaded")
    while isinstance(model, AbstractWrapper):
        model = model.model
    network = getattr(model, "network", None)
    if not isinstance(model, ScoreModel) or not isinstance(network, OfTimesteps):
        raise ValueError(
            f"{call}: the model is a {type(model).__name__} of a {type(network).__name__}, which is no network of "
            "diffusers; save it by sgm.save."
        )
    return model


def _write_network(folder, network, dtype):
    folder.mkdir(exist_ok=True)
    fields = to_json(network, whole=True)
    config = {"_class_name": fields.pop("type"), "_diffusers_version": _RELEASE, **fields}
    tensors = to_tensors(network)
    if dtype is not None:
        is_real = {name: jnp.issubdtype(tensor.dtype, jnp.floating) for name, tensor in tensors.items()}
        tensors = {
            name: tensor.astype(jnp.dtype(dtype)) if is_real[name] else tensor for name, tensor in tensors.items()
        }
    # The head tells torch's readers that the file is for them.
    write_tensors(folder / f"{STEM}.safetensors", tensors, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
