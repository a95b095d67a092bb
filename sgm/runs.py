"""The folder of a run: what it says of itself, and the model that was trained in it."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx

from sgm.experiment import Experiment, Records
from sgm.interop.diffusers.description import is_diffusers
from sgm.interop.diffusers.folder import load_source
from sgm.interop.hub import find_source
from sgm.interop.saved import is_saved, read_saved
from sgm.nn.layers import Precision
from sgm.options import ExperimentError, options
from sgm.parallel.processes import is_first
from sgm.serial import from_json, to_json
from sgm.training import latest_step
from sgm.training.learned_schedule import has_learned_part, learned_part
from sgm.training.load import restore

T = TypeVar("T")

_FILE = "experiment.json"
_RECORDS = "records.json"


def is_begun(run: Path) -> bool:
    """Whether the folder has an experiment of which something is trained."""
    return (run / _FILE).exists() and latest_step(run) is not None


def write_experiment(run: Path, experiment: Experiment) -> None:
    """Write an experiment to the folder of its run, whole or not at all. Of several processes, the first writes it."""
    if not is_first():
        return
    # What the model knows of the data is written beside it, so that it is loaded where the data are not.
    for name, written in {_RECORDS: experiment.records, _FILE: experiment}.items():
        part = run / (name + ".part")
        part.write_text(json.dumps(to_json(written), indent=2, allow_nan=False) + "\n")
        part.replace(run / name)


def read_experiment(run: Path) -> Experiment:
    """Read the experiment of a run.

    Raises:
        ExperimentError: where there is none, or it cannot be read.
    """
    return _read(run, _FILE, Experiment)


def _read(run: Path, name: str, kind: type[T]) -> T:
    path = run / name
    try:
        written = json.loads(path.read_text())
    except FileNotFoundError:
        remedy = "pass the folder of a run"
        if latest_step(run) is not None:
            remedy = "load a run of sgm.train by sgm.training.load_run(run, sde, model)"
        raise ExperimentError(f"{run}: there is no run ({name} is missing); {remedy}.") from None
    except json.JSONDecodeError as error:
        raise ExperimentError(f"{path}: it is not JSON ({error}); restore it, or begin in another folder.") from None
    return from_json(written, kind)


def load(
    path: str | Path,
    *,
    average: bool = True,
    step: int | None = None,
    precision: Precision | None = None,
    revision: str | None = None,
    variant: str | None = None,
    progress: bool = True,
) -> tuple[Any, Any]:
    """Load a process and a model from a folder or from the HuggingFace hub.

    It may be the run of a command line; what `sgm.save` has written; or a model of HuggingFace diffusers (see
    `sgm.interop.diffusers.load`, which has more options, and returns the scheduler too).

    Arguments:
        path: Folder, or the name of a model on the hub, as "google/ddpm-cifar10-32". What is downloaded is kept in the
            cache of the hub, and is read from there without a network.
        average: Whether the averaged weights of a run are loaded, or the raw ones.
        step: Step of a run's checkpoint, such as `sgm.training.best_step(path)`; by default the newest.
        precision: Precision in which the network computes, if it has that option; None for that of the training, and
            float32 of a model of diffusers.
        revision: Branch, tag or commit of a model of the hub.
        variant: Variant of the weights of a model of diffusers, such as "fp16".
        progress: Whether a bar is shown while weights are read.

    Returns:
        The process and the model, in the units of the data. Of a run they are those of a checkpoint.

    Raises:
        TypeError: for what is no path, and options of another type.
        ExperimentError: where there is nothing to load, or a class whose module is not imported.
        CheckpointError: where a run has no checkpoint, or it is damaged.
        SavedError: where what was saved is of a later version, or damaged.
        HubError: for a model that cannot be downloaded.
        ValueError: for a model of diffusers that cannot be read, and for an option of another kind of folder.

    Example:
        >>> folder = sgm.save("maps", sde, model)
        >>> sde, model = sgm.load("maps")  # likewise a run, "runs/digits", or "google/ddpm-cifar10-32" of the hub
    """
    source = find_source(path, revision=revision)
    folder, raw = source.folder, None if average else False
    if (folder / _FILE).exists():
        _check_options(path, "a run", variant=variant)
        return load_trained(folder, average=average, step=step, precision=precision)
    if is_saved(folder):
        _check_options(path, "a saved model", average=raw, step=step, variant=variant)
        return read_saved(source, precision=precision, progress=progress)
    if is_diffusers(folder):
        _check_options(path, "a model of diffusers", average=raw, step=step)
        return load_source(source, variant=variant, precision=precision or "float32", progress=progress)[:2]
    if latest_step(folder) is not None:
        raise ExperimentError(
            f"load: {path} is a run of sgm.train, which does not say of what; load it by "
            "sgm.training.load_run(run, sde, model)."
        )
    raise ExperimentError(
        f"load: {path} holds no run ({_FILE}), nothing that sgm.save has written and no model of diffusers "
        '(config.json or model_index.json); pass such a folder, or the name of a model on the hub, "user/name".'
    )


def _check_options(path, kind, **given):
    """Raise for options that were given, and that the folder has nothing for."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"load: {name} = {value!r}, but {path} is {kind}, which has no such choice; leave it out.")


def load_trained(
    run: Path, *, average: bool = True, step: int | None = None, precision: Precision | None = None
) -> tuple[Any, Any]:
    """Load what the command line has trained.

    Arguments:
        run: Folder of the run.
        average, step, precision: As those of `load`.

    Returns:
        The process and the model of the checkpoint, in the units of the data.

    Raises:
        ExperimentError: where the folder has no experiment, or one with a class whose module is not imported.
        CheckpointError: where there is no checkpoint, or it is damaged.
    """
    experiment = read_experiment(run)
    network: Any = experiment.network.func
    if precision is not None and "precision" in options(network):
        experiment = dataclasses.replace(experiment, network=partial(experiment.network, precision=precision))
    sde, model = experiment.skeleton(_read(run, _RECORDS, Records))
    return restore(run, sde, model, average=average, step=step)


def begin_from(run: Path, experiment: Experiment) -> tuple[Any, Any]:
    """Build the process and the model with which a run begins that goes on from another one.

    Arguments:
        run: Folder of the other run.
        experiment: What the new run is trained with.

    Returns:
        The new process, with the schedule of the other run where both train one, and the model of the other run, with
        its averaged weights, its units and the statistics of its parameters.

    Raises:
        ExperimentError: where the two runs have other networks, naming the options.
        CheckpointError: where the folder has no checkpoint.
    """
    saved, records = read_experiment(run), _read(run, _RECORDS, Records)
    theirs, ours = _network_settings(saved, records), _network_settings(experiment, experiment.records)
    names = [name for name in sorted(theirs | ours) if theirs.get(name) != ours.get(name)]
    if names:
        lines = (f"{name} ({theirs.get(name)}, not {ours.get(name)})" for name in names)
        raise ExperimentError(
            f"begin_from: the run {run} has another network, in {', '.join(lines)}; pass the options that it was "
            "trained with, or begin from new weights."
        )
    # In the settings of the new run that the weights do not depend on, such as dropout.
    sde, model = restore(run, saved.sde, experiment.skeleton(records)[1])
    both = has_learned_part(sde) and has_learned_part(experiment.sde)
    return eqx.combine(learned_part(sde), experiment.sde) if both else experiment.sde, model


def _network_settings(experiment, records):
    """All that the weights of a network depend on, by the names of the options."""
    free = ("dropout", "remat", "precision")
    parts = {"network": experiment.network, "prediction": experiment.prediction}
    settings = {"data.shape": records.shape, "data.conditioning": records.conditioning}
    settings["loss.condition_dropout > 0"] = experiment.loss.condition_dropout > 0
    settings["loss.masking"] = experiment.loss.masking is not None
    for place, part in parts.items():
        written = to_json(part)
        settings[place] = written.pop("type")
        settings |= {f"{place}.{name}": value for name, value in written.items() if name not in free}
    return settings
