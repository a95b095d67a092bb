"""An experiment: the objects that make a run, from data to evaluation."""

import dataclasses
import importlib.util
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from sgm.checks import check_count, check_instance, check_positive
from sgm.data import AbstractDataset
from sgm.evaluation import AbstractMetric, LogLikelihood
from sgm.likelihood import AbstractDequantisation, UniformDequantisation
from sgm.model import AbstractModifier, AbstractParameterisation, Karras
from sgm.nn import AbstractNetwork, Conditioning, Units
from sgm.nn.layers import Precision
from sgm.options import ExperimentError, guess
from sgm.sde import VP, AbstractProcess
from sgm.serial import to_json
from sgm.solve import AbstractSamplingMethod, EulerMaruyama
from sgm.training import AbstractLoss, Loss, Training


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How many samples are drawn after training.

    Arguments:
        n: Number of samples.
        frames: Number of frames of a film strip, or of points of a trajectory.
        tolerance: Absolute tolerance of the probability flow that is drawn beside the sampler.
        film: Number of frames in which the samples of a film form.
    """

    n: int = 64
    frames: int = 10
    tolerance: float = 1e-4
    film: int = 30

    def __post_init__(self):
        check_count("Drawing", "n", self.n)
        check_count("Drawing", "frames", self.frames)
        check_count("Drawing", "film", self.film)
        check_positive("Drawing", "tolerance", self.tolerance)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated after training.

    Arguments:
        split: Split of the data.
        n: Number of examples from the start of the split; None for all.
        batch_size: Number of examples at a time.
        precision: Precision in which the network computes, whatever it was trained in.
    """

    split: Literal["train", "test"] = "test"
    n: int | None = None
    batch_size: int = 100
    precision: Precision = "float32"

    def __post_init__(self):
        check_count("Evaluation", "batch_size", self.batch_size)
        if self.n is not None:
            check_count("Evaluation", "n", self.n)


@dataclasses.dataclass(frozen=True)
class Records:
    """What a model has to know of the records of a data set before it is built.

    Arguments:
        shape: Shape of one example.
        levels: Number of grey levels; None of real numbers.
        conditioning: Conditions of an example.
    """

    shape: tuple[int, ...]
    levels: int | None
    conditioning: Conditioning


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that a run is made of.

    Arguments:
        data: Data set.
        network: Class of the network with its options: a `functools.partial` of a subclass of
            `sgm.nn.AbstractNetwork`, which is given the shape and the conditions of the data when it is built.
        sde: Process.
        prediction: Meaning of the network's output.
        loss: Loss of the training.
        dequantisation: Rule that makes real numbers of grey levels, in training and evaluation.
        training: Length and optimiser of the training.
        sampler: Method that draws samples.
        guidance: Change of the model that samples are drawn by, with its options: a `functools.partial` of a subclass
            of `sgm.model.AbstractModifier`, such as `ClassifierFree`.
        drawing: Samples that are drawn.
        metrics: Metrics of the evaluation.
        evaluation: Examples that are evaluated.
        seed: Seed of all randomness.

    Raises:
        TypeError: for data, a process, a prediction, a loss, a dequantisation, a sampler or metrics of other types, and
            a network or a guidance that is no `functools.partial`.
        ExperimentError: for a partial of another class than is asked for, or with options that are not named.

    Example:
        >>> experiment = Experiment(data=Digits(), network=partial(MLP, width=320), training=Training(steps=11_000))
        >>> sde, model = experiment.build()
    """

    data: AbstractDataset
    network: partial[AbstractNetwork]
    sde: AbstractProcess = dataclasses.field(default_factory=VP)  # made when used: it starts JAX
    prediction: AbstractParameterisation = Karras()
    loss: AbstractLoss = Loss()
    dequantisation: AbstractDequantisation = UniformDequantisation()
    training: Training = Training()
    sampler: AbstractSamplingMethod = EulerMaruyama(500)
    guidance: partial[AbstractModifier] | None = None
    drawing: Drawing = Drawing()
    metrics: tuple[AbstractMetric, ...] = (LogLikelihood(),)
    evaluation: Evaluation = Evaluation()
    seed: int = 0

    def __post_init__(self):
        check_instance("Experiment", "data", self.data, AbstractDataset, "sgm.data.Digits()")
        check_instance("Experiment", "network", self.network, partial, "functools.partial(sgm.nn.MLP, width=64)")
        check_instance("Experiment", "sde", self.sde, AbstractProcess, "sgm.VP()")
        check_instance("Experiment", "prediction", self.prediction, AbstractParameterisation, "sgm.model.Velocity()")
        check_instance("Experiment", "loss", self.loss, AbstractLoss, "sgm.Loss()")
        rule = "sgm.likelihood.UniformDequantisation()"
        check_instance("Experiment", "dequantisation", self.dequantisation, AbstractDequantisation, rule)
        check_instance("Experiment", "sampler", self.sampler, AbstractSamplingMethod, "sgm.DDIM(50)")
        check_instance("Experiment", "metrics", self.metrics, tuple, "(sgm.evaluation.LogLikelihood(),)")
        for metric in self.metrics:
            check_instance("Experiment", "metrics", metric, AbstractMetric, "sgm.evaluation.LogLikelihood()")
        network = self.network.func
        if not (isinstance(network, type) and issubclass(network, AbstractNetwork)) or self.network.args:
            raise ExperimentError(
                f"Experiment: network is {self.network}; pass a functools.partial of a subclass of "
                "sgm.nn.AbstractNetwork, with its options by name."
            )

        if self.guidance is not None:
            check_instance(
                "Experiment", "guidance", self.guidance, partial, "functools.partial(ClassifierFree, weight=3.0)"
            )
            changed = self.guidance.func
            if not (isinstance(changed, type) and issubclass(changed, AbstractModifier)) or self.guidance.args:
                raise ExperimentError(
                    f"Experiment: guidance is {self.guidance}; pass a functools.partial of a subclass of "
                    "sgm.model.AbstractModifier, with its options by name."
                )

    def guided(self, model: Any) -> Any:
        """The model that samples are drawn by."""
        return model if self.guidance is None else self.guidance(model)

    def key(self, purpose: str) -> PRNGKeyArray:
        """The key of the seed for one purpose. No two purposes share a key."""
        return jr.fold_in(jr.key(self.seed), zlib.crc32(purpose.encode()))

    def build(self) -> tuple[AbstractProcess, Any]:
        """Build the process and the untrained model, in the units of the data.

        Raises:
            ExperimentError: where conditions are dropped that the data do not have.
            ValueError: where the prediction is not of the process.
        """
        return self.sde, self.prediction.model(self._network(self.records), self.sde, data=self.data)

    @property
    def records(self) -> Records:
        """What the model has to know of the data."""
        return Records(self.data.shape, self.data.levels, self.data.conditioning)

    def skeleton(self, records: Records) -> tuple[AbstractProcess, Any]:
        """Build as `build` does, with shapes in place of arrays, to restore a trained model. No data are read.

        Arguments:
            records: The experiment's `records`, of when the model was trained.

        Raises:
            ExperimentError: as `build` does.
            ValueError: as `build` does.
        """
        if type(self.data).units is not AbstractDataset.units:
            units = self.data.units
        elif records.levels is not None:
            units = Units.of_levels(records.levels)
        else:
            units = Units(np.zeros(records.shape[-1:]), np.ones(records.shape[-1:]))

        def model():
            return self.prediction.model(self._network(records), self.sde, shape=records.shape, units=units)

        return self.sde, eqx.filter_eval_shape(model)

    def _network(self, records):
        conditioning, dropout = records.conditioning, self.loss.condition_dropout
        if dropout > 0 and not conditioning.parts:
            raise ExperimentError(
                f"loss.condition_dropout = {dropout}, but the data have no condition to drop; pass 0, or data with one."
            )
        self.prediction.check(self.sde)
        observed = None if self.loss.masking is None else records.shape[0]
        return self.network(
            self.prediction.network_shape(self.sde, records.shape),
            outputs=self.prediction.outputs,
            conditioning=dataclasses.replace(conditioning, observed=observed, null=dropout > 0),
            key=self.key("network"),
        )


# What a run may change when it goes on: none of it changes the trained model, but for rounding.
_FREE = (
    *("sampler", "guidance", "drawing", "metrics", "evaluation", "data.path", "network.remat", "training.accumulate"),
    *("training.log_every", "training.checkpoint_every", "training.preview_every"),
    *("training.keep", "training.keep_best"),
)


def differences(first: Experiment, second: Experiment) -> set[str]:
    """The options, as `training.steps`, in which two experiments would not train the same model.

    Where they have different classes at a place, as two processes, the place is named, and not the classes' options.
    """
    return {
        name
        for name in _differing(to_json(first), to_json(second), "")
        if not any(name == free or name.startswith(f"{free}.") for free in _FREE)
    }


def _differing(first: Any, second: Any, place: str):
    if isinstance(first, dict) and isinstance(second, dict) and first["type"] == second["type"]:
        for name in first | second:
            yield from _differing(first.get(name), second.get(name), f"{place}.{name}".lstrip("."))
    elif first != second:
        yield place


def config_folder() -> Path:
    """The folder of the shipped configurations: in the package once installed, and beside it in the repository."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def config_names() -> list[str]:
    """The names of the shipped configurations."""
    return sorted(path.stem for path in config_folder().glob("*.py"))


def load_config(name: str) -> Experiment:
    """Load an experiment from a configuration file.

    Arguments:
        name: Name of a shipped configuration, such as "digits", or the path of a Python file that defines `experiment`.
            Such a file is imported as a module of its name, so that its classes can be named in files and by flags.

    Returns:
        The experiment.

    Raises:
        ExperimentError: where there is no such file, or it defines no experiment.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise ExperimentError(f"load_config: there is no file {name}; pass the path of a Python file.")
        module = _import(path)
    elif name in config_names():
        path = config_folder() / f"{name}.py"
        module = _executed(path, f"sgm.configs.{name}")
    else:
        raise ExperimentError(
            f"load_config: there is no configuration {name}; {guess(name, config_names())}. Or pass the path of a "
            "Python file."
        )
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ExperimentError(f"load_config: {path} defines no `experiment`; add experiment = Experiment(...) to it.")
    return experiment


def _import(path):
    """Import a file as the module of its name, as running it would, and put its folder where its imports look."""
    if "." in path.stem:
        raise ExperimentError(f"load_config: {path.stem} is no name of a module; give {path} a name without a dot.")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) != str(path):
        raise ExperimentError(f"load_config: {path.stem} is the name of another module; give {path} another name.")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return _executed(path, path.stem)


def _executed(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
