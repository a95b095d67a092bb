"""An experiment as data: frozen dataclasses and their JSON."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from jaxtyping import PRNGKeyArray

import sgm.data
import sgm.likelihood
import sgm.model
import sgm.nn
import sgm.sde
import sgm.training
from sgm.nn.conditioning import Conditioning
from sgm.nn.layers import Precision

_FILE = "config.json"


class ConfigError(ValueError):
    """A configuration that cannot be built, or is not that of its run."""


Data = (
    sgm.data.Digits
    | sgm.data.Images
    | sgm.data.SwissRoll
    | sgm.data.StandardSwissRoll
    | sgm.data.Spiral
    | sgm.data.Moons
    | sgm.data.TwoGaussians
    | sgm.data.EightGaussians
    | sgm.data.Checkerboard
    | sgm.data.GaussianField
    | sgm.data.GaussianFieldMap
    | sgm.data.DeadLeaves
    | sgm.data.Coins
)


def _check(section, config, name, holds, remedy):
    if not holds:
        option = f"{section}.{name.replace('_', '-')}"
        raise ConfigError(f"{option} = {getattr(config, name)}; pass {remedy}.")


def _check_positive(section, config, *names):
    for name in names:
        value = getattr(config, name)
        _check(section, config, name, value is None or value >= 1, "at least 1")


_BETAS = {
    "Linear": sgm.sde.LinearBetas,
    "Cosine": sgm.sde.CosineBetas,
    "Sigmoid": sgm.sde.SigmoidBetas,
    "SohlDickstein": sgm.sde.SohlDicksteinBetas,
}
_SCHEDULES = ("Linear", "Cosine", "LearnedLogSNR")


@dataclass(frozen=True)
class SDEConfig:
    """A process of `sgm.sde`; an option left at None has the default of the process."""

    process: Literal["VP", "SubVP", "VE", "Rectified", "DiscreteChain"] = "VP"
    schedule: Literal["Linear", "Cosine", "Sigmoid", "SohlDickstein", "LearnedLogSNR"] | None = None
    """Linear by default. Of VP and SubVP, Linear or Cosine; of VP, LearnedLogSNR, trained beside the model with times
    UniformTime and weighting Likelihood; of DiscreteChain, any fixed one."""
    steps: int | None = None
    """Of DiscreteChain, 1000 by default."""
    beta_min: float | None = None
    """Of the Linear schedule."""
    beta_max: float | None = None
    """Of the Linear schedule."""
    ratio_min: float | None = None
    """Of the Cosine schedule, and of LearnedLogSNR at its start."""
    ratio_max: float | None = None
    """Of the Cosine schedule, and of LearnedLogSNR at its start."""
    sigma_min: float | None = None
    """Of VE."""
    sigma_max: float | None = None
    """Of VE."""
    t0: float | None = None
    t1: float | None = None

    def build(self) -> sgm.sde.AbstractSDE:
        """The process. Raises ConfigError for an option that it does not have."""
        known = {"VP": _SCHEDULES, "SubVP": _SCHEDULES[:2], "DiscreteChain": tuple(_BETAS)}.get(self.process, ())
        if self.schedule is not None and self.schedule not in known:
            remedy = f"pass {', '.join(known)}" if known else "leave it out"
            raise ConfigError(f"sde.schedule = {self.schedule}: it is not of {self.process}; {remedy}.")
        options = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        if options["process"] == "DiscreteChain":
            del options["process"]
            betas = _BETAS[options.pop("schedule", "Linear")]
            return sgm.sde.DiscreteChain(call("sde", betas, options))
        process = getattr(sgm.sde, options.pop("process"))
        rates = {
            name: options.pop(name) for name in ("beta_min", "beta_max", "ratio_min", "ratio_max") if name in options
        }
        if rates or "schedule" in options:
            schedule = getattr(sgm.sde, options.get("schedule", "Linear"))
            options["schedule"] = call("sde", schedule, rates)
        return call("sde", process, options)


@dataclass(frozen=True, kw_only=True)
class _NetworkConfig:
    """Options that all networks have."""

    dropout: float = 0.0
    precision: Precision = "float32"
    """In which the network computes."""
    remat: bool = False
    """Compute each block's activations again for its gradient: less memory, more time."""

    def build(self, shape: tuple[int, ...], conditioning: Conditioning, key: PRNGKeyArray, outputs: int) -> Callable:
        """The network for examples of `shape`, with so many outputs an entry."""
        network = getattr(sgm.nn, type(self).__name__.removesuffix("Config"))
        options = {"outputs": outputs, "conditioning": conditioning, "key": key}
        return network(shape, **dataclasses.asdict(self), **options)


@dataclass(frozen=True)
class MLPConfig(_NetworkConfig):
    """`sgm.nn.MLP`."""

    width: int = 256
    depth: int = 4
    frequencies: int = 0
    """Of the waves that join the input, for densities of sharp edges."""


@dataclass(frozen=True)
class UNetConfig(_NetworkConfig):
    """`sgm.nn.UNet`."""

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    """Heights of the levels whose blocks attend among their pixels."""


@dataclass(frozen=True)
class DiTConfig(_NetworkConfig):
    """`sgm.nn.DiT`; `DiTConfig(**sgm.nn.DIT_PRESETS["B/2"])` has the sizes of the paper."""

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2


@dataclass(frozen=True)
class ConvDenseConfig(_NetworkConfig):
    """`sgm.nn.ConvDense`."""

    convolutions: int | None = None
    width: int = 20
    scales: int = 1
    dense: int = 4
    dense_width: int = 500
    dense_outputs: int = 2
    upper: int = 2
    upper_width: int = 20
    bumps: int = 10


Network = MLPConfig | UNetConfig | DiTConfig | ConvDenseConfig


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: int = 500
    """Steps over which the learning rate rises."""
    clip: float = 1.0
    """Largest global norm of a gradient."""
    average_decay: float = 0.999
    """Of the exponential average of the weights."""
    condition_dropout: float = 0.0
    """Probability with which an example's condition is dropped; above 0 the network learns a null in its place."""
    accumulate: int = 1
    """Parts of a batch whose gradients are found one after the other, to save memory."""
    dequantisation: Literal["Uniform", "TruncatedNormal"] = "Uniform"
    """Of grey levels, in training and evaluation. TruncatedNormal wants a process that begins at noise of about a sixth
    of a level's width (see sde.t0)."""
    weighting: Literal["Uniform", "Likelihood", "Karras"] = "Likelihood"
    times: Literal["UniformTime", "UniformLogSNR", "NormalLogSNR", "ChainSteps"] = "UniformLogSNR"
    objective: Literal["Squared", "SquaredVelocity", "Absolute", "Bound", "Hybrid"] = "Squared"
    """Bound and Hybrid, of a DiscreteChain, want times ChainSteps and weighting Uniform."""
    log_every: int = 50
    checkpoint_every: int = 500
    sample_every: int = 2000

    def __post_init__(self):
        _check_positive("train", self, "steps", "batch_size", "accumulate")
        _check_positive("train", self, "log_every", "checkpoint_every", "sample_every")
        _check("train", self, "learning_rate", self.learning_rate > 0, "more than 0")
        _check("train", self, "clip", self.clip > 0, "more than 0")
        _check("train", self, "warmup", self.warmup >= 0, "0 or more")
        for name in ("average_decay", "condition_dropout"):
            _check("train", self, name, 0 <= getattr(self, name) < 1, "at least 0 and less than 1")


@dataclass(frozen=True)
class SampleConfig:
    """How the final samples are drawn."""

    n: int = 64
    method: Literal[
        "EulerMaruyama",
        "Ancestral",
        "DDIM",
        "DPMSolverPP",
        "SingleDPMSolverPP",
        "SDEDPMSolverPP",
        "EDMHeun",
        "PredictorCorrector",
    ] = "EulerMaruyama"
    """What draws samples.png; the probability flow is drawn beside it."""
    steps: int = 500
    grid: Literal["LogSNRGrid", "UniformGrid", "QuadraticGrid", "ThetaGrid", "KarrasGrid", "ChainGrid"] = "LogSNRGrid"
    order: int | None = None
    """Of the DPM-Solvers."""
    eta: float | None = None
    """Of DDIM."""
    churn: float | None = None
    """Of EDMHeun."""
    corrections: int | None = None
    """Of PredictorCorrector."""
    tolerance: float = 1e-4
    """Of the probability flow's adaptive solve."""
    frames: int = 10
    """Of the film strip, or of a trajectory."""

    def __post_init__(self):
        _check_positive("sample", self, "n", "steps", "frames")
        _check("sample", self, "tolerance", self.tolerance > 0, "more than 0")


@dataclass(frozen=True)
class EvaluateConfig:
    """How the log-likelihood of a split is found."""

    split: Literal["train", "test"] = "test"
    n: int | None = None
    """Examples from the start of the split; None for all."""
    batch_size: int = 100
    trace: Literal["exact", "hutchinson", "probing"] = "exact"
    probes: int = 4
    """Of hutchinson; of probing, draws of the signs."""
    stride: int = 2
    """Of probing, along height and width; channels are kept apart."""
    chunk: int | None = None
    """Products with the Jacobian that are taken at a time, over the whole batch: it sets the memory."""
    tolerance: float = 1e-4
    """Of the adaptive solve, where no accuracy is asked for."""
    accuracy: float | None = None
    """In nats; then tolerances and probes are chosen for each example."""
    bound_steps: int = 100
    """Of a chain's bound: how many of its steps each of two draws visits, for each example."""
    samples: int = 1
    """Draws of each dequantised image, over which probabilities are averaged."""
    precision: Precision = "float32"
    """In which the network computes, whatever it was trained in."""

    def __post_init__(self):
        _check_positive("evaluate", self, "n", "batch_size", "probes", "stride", "chunk", "samples", "bound_steps")
        for name in ("tolerance", "accuracy"):
            value = getattr(self, name)
            _check("evaluate", self, name, value is None or value > 0, "more than 0")


@dataclass(frozen=True)
class Config:
    """An experiment."""

    data: Data
    network: Network
    sde: SDEConfig = SDEConfig()
    prediction: Literal["Noise", "Denoised", "Velocity", "Score", "Karras", "MeanCoefficient"] = "Karras"
    variance: Literal["FixedSmall", "FixedLarge", "Interpolated", "Learned"] = "FixedSmall"
    """Of the reverse transitions, in ancestral sampling and the bound; the last two are a second output's."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for the Karras prediction and weighting."""
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    stages: tuple[Literal["train", "sample", "evaluate"], ...] = ("train", "sample", "evaluate")
    run: str = "runs/unnamed"
    """The folder of the run; on the command line runs/NAME by default."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """The folder of another run, whose averaged weights and trained schedule this one begins with."""
    seed: int = 0


def has_config(run: Path) -> bool:
    """Whether the folder is that of a run."""
    return (run / _FILE).exists()


def write_config(run: Path, config: Config) -> None:
    """Write the configuration to the run as JSON, whole or not at all."""
    part = run / (_FILE + ".part")
    part.write_text(json.dumps(to_json(config), indent=2) + "\n")
    part.replace(run / _FILE)


def read_config(run: str | Path) -> Config:
    """The configuration of a run. Raises ConfigError where it is not one."""
    path = Path(run) / _FILE
    try:
        config = from_json(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: it is not JSON ({error}); restore it, or begin in another folder.") from None
    if not isinstance(config, Config):
        raise ConfigError(f"{path}: it describes a {type(config).__name__}; a run is described by a Config.")
    return config


def differences(first: Config, second: Config) -> set[str]:
    """The fields, as `train.steps`, in which two configurations would not train the same model."""
    flat, other = (_flatten(to_json(config)) for config in (first, second))
    names = {name for name in flat.keys() | other.keys() if flat.get(name) != other.get(name)}
    return {name for name in names if not name.startswith(_FREE)}


# What a run may change when it goes on: none of it changes the trained model, but for rounding.
_FREE = (
    *("sample.", "evaluate.", "stages", "run", "data.path", "network.remat", "train.accumulate"),
    *("train.log_every", "train.checkpoint_every", "train.sample_every"),
)


def _flatten(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    parts = (_flatten(field, f"{prefix}{name}.") for name, field in value.items())
    return {name: leaf for part in parts for name, leaf in part.items()}


def to_json(value: Any) -> Any:
    """Dataclasses as objects with their class's name under "type"."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return list(value) if isinstance(value, tuple) else value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`, for the classes of this module and the data sets."""
    if isinstance(value, dict):
        fields = {name: from_json(field) for name, field in value.items()}
        kind = fields.pop("type", None)
        if kind not in _CLASSES:
            raise ConfigError(f"configuration: there is no {kind!r}; known are {', '.join(sorted(_CLASSES))}.")
        return call("configuration", _CLASSES[kind], fields)
    return tuple(value) if isinstance(value, list) else value


_SECTIONS = (Config, SDEConfig, TrainConfig, SampleConfig, EvaluateConfig)
_CLASSES = {cls.__name__: cls for cls in (*_SECTIONS, *Network.__args__, *Data.__args__)}


def is_known(kind: type) -> bool:
    """Whether a class can be named in a configuration on disk."""
    return _CLASSES.get(kind.__name__) is kind


def call(where: str, function: Callable, options: dict[str, Any]) -> Any:
    """`function(**options)`. Raises ConfigError for options that it does not have, or lacks."""
    parameters = inspect.signature(function).parameters
    for name in options:
        if name not in parameters:
            raise ConfigError(f"{where}: {function.__name__} has no option {name!r}; it has {', '.join(parameters)}.")
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise ConfigError(f"{where}: {function.__name__} lacks {name!r}.")
    return function(**options)
