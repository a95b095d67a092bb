"""The folder of a run: what it says of itself, and the model that was trained in it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from sgm.experiment import Experiment
from sgm.nn.conditioning import Conditioning
from sgm.nn.units import Units
from sgm.options import ExperimentError
from sgm.serial import from_json, to_json

_FILE = "experiment.json"


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What a model is built from of its data, so that a run can be loaded where the data are not.

    Arguments:
        shape: Shape of one example.
        conditioning: What a network conditioned on the records is built for.
        units_shape: Shape of the mean and standard deviation of the units, whose values are restored with the model.
    """

    shape: tuple[int, ...]
    conditioning: Conditioning
    units_shape: tuple[int, ...]

    @property
    def units(self) -> Units:
        """Units of the right shape."""
        return Units(np.zeros(self.units_shape), np.ones(self.units_shape))

    def statistics(self) -> None:
        return None


def is_begun(run: Path) -> bool:
    """Whether the folder has an experiment of which something is trained."""
    return (run / _FILE).exists() and latest_step(run) is not None


def write_experiment(run: Path, experiment: Experiment) -> None:
    """Write an experiment to the folder of its run, whole or not at all."""
    data = experiment.data
    facts = DataFacts(data.shape, data.conditioning, np.shape(data.units.mean.value))
    text = json.dumps({"experiment": to_json(experiment), "data": to_json(facts)}, indent=2, allow_nan=False)
    part = run / (_FILE + ".part")
    part.write_text(text + "\n")
    part.replace(run / _FILE)


def read_experiment(run: Path) -> tuple[Experiment, DataFacts]:
    """Read the experiment of a run, and what its model is built from of the data.

    Raises:
        ExperimentError: where there is none, or it cannot be read.
    """
    path = run / _FILE
    try:
        written: Any = json.loads(path.read_text())
        parts = written["experiment"], written["data"]
    except FileNotFoundError:
        raise ExperimentError(f"{run}: there is no run ({_FILE} is missing); pass the folder of a run.") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ExperimentError(
            f"{path}: it cannot be read ({reason}); restore it, or begin in another folder."
        ) from None
    return from_json(parts[0], Experiment), from_json(parts[1], DataFacts)


def begin_from(run: Path, experiment: Experiment) -> tuple[AbstractSDE, ScoreModel]:
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
    saved, facts = read_experiment(run)
    theirs = _network_settings(saved, facts.shape, facts.conditioning)
    ours = _network_settings(experiment, experiment.data.shape, experiment.data.conditioning)
    names = [name for name in sorted(theirs | ours) if theirs.get(name) != ours.get(name)]
    if names:
        lines = (f"{name} ({theirs.get(name)}, not {ours.get(name)})" for name in names)
        raise ExperimentError(
            f"--from {run}: that run has another network, in {', '.join(lines)}; pass the options that it was trained "
            "with, or leave --from out."
        )
    sde, model = load(run)
    both = has_learned_part(sde) and has_learned_part(experiment.sde)
    return eqx.combine(learned_part(sde), experiment.sde) if both else experiment.sde, model


def _network_settings(experiment, shape, conditioning):
    """All that the weights of a network depend on, by the names of the options."""
    free = ("dropout", "remat", "precision")
    parts = {"network": experiment.network, "prediction": experiment.prediction}
    settings = {"data.shape": shape, "data.conditioning": conditioning}
    settings["loss.condition_dropout > 0"] = experiment.loss.condition_dropout > 0
    for place, part in parts.items():
        written = to_json(part)
        settings[place] = written.pop("type")
        settings |= {f"{place}.{name}": value for name, value in written.items() if name not in free}
    return settings
