"""What a configuration describes: process, model, data, and how they are trained, sampled and evaluated."""

import dataclasses
import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

import sgm.likelihood
import sgm.model
import sgm.sde
import sgm.solve
import sgm.training
import sgm.training.objective
from sgm.config import Config, ConfigError, Data, call, from_json, has_config, is_known, read_config, to_json
from sgm.nn.conditioning import Conditioning, with_statistics
from sgm.training.checkpoint import CheckpointError, latest_step, restore_checkpoint
from sgm.training.learned_schedule import has_learned_part
from sgm.training.loop import Recipe, TrainState, adam


def key_for(config: Config, purpose: str) -> PRNGKeyArray:
    """The key of the configuration's seed for one purpose; no two purposes share a key."""
    return jr.fold_in(jr.key(config.seed), zlib.crc32(purpose.encode()))


class Built(NamedTuple):
    """What `build` makes of a configuration."""

    sde: sgm.sde.AbstractSDE
    model: sgm.model.ScoreModel
    data: Data


def build(config: Config) -> Built:
    """The process, the untrained model and the data set of a configuration."""
    null = config.train.condition_dropout > 0
    if null and not config.data.conditions:
        raise ConfigError(
            f"train.condition_dropout = {config.train.condition_dropout}, but the data have no condition to drop; "
            "pass 0, or give the data one, as data.classes does."
        )
    conditioning = Conditioning(**config.data.conditions, null=null)
    sde, learned = config.sde.build(), getattr(sgm.model, config.variance).learned
    network = config.network.build(config.data.shape, conditioning, key_for(config, "network"), 2 if learned else 1)
    options = {"Karras": {"sigma_data": config.sigma_data}, "MeanCoefficient": {"chain": sde}}
    if config.prediction == "MeanCoefficient":
        check_chain(config, sde, "prediction")
    prediction = getattr(sgm.model, config.prediction)(**options.get(config.prediction, {}))
    if learned:
        prediction = sgm.model.WithVariance(prediction)
    return Built(sde, sgm.model.ScoreModel(network, prediction, shape=config.data.shape), config.data)


def check_chain(config: Config, sde: sgm.sde.AbstractSDE, *names: str) -> sgm.sde.DiscreteChain:
    """The process as a chain; raise ConfigError, naming the option that needs one, if it is another."""
    if not isinstance(sde, sgm.sde.DiscreteChain):
        raise ConfigError(
            f"{'.'.join(names)}: it is of a chain's own steps, but sde.process = {config.sde.process}; "
            "pass --sde.process DiscreteChain, or another."
        )
    return sde


def build_variance(config: Config) -> sgm.model.AbstractVariance:
    """The variance of the reverse transitions."""
    options = {"steps": config.sde.steps or 1000} if config.variance == "Learned" else {}
    return getattr(sgm.model, config.variance)(**options)


def build_objective(config: Config, sde: sgm.sde.AbstractSDE) -> sgm.training.AbstractObjective:
    """What an estimate is charged with in training."""
    objective = config.train.objective
    if objective in ("Squared", "SquaredVelocity", "Absolute"):
        return getattr(sgm.training.objective, objective)()
    bound = sgm.training.objective.Bound(check_chain(config, sde, "train", "objective"), build_variance(config))
    return bound if objective == "Bound" else sgm.training.objective.Hybrid(bound)


def build_sampler(config: Config) -> sgm.solve.AbstractMethod:
    """The method that draws samples. Raises ValueError where its steps are not on the process."""
    chosen = config.sample
    given = {name: getattr(chosen, name) for name in ("order", "eta", "churn", "corrections")}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options |= {"steps": chosen.steps, "grid": getattr(sgm.solve, chosen.grid)()}
    if chosen.method in ("Ancestral", "PredictorCorrector"):
        options["variance"] = build_variance(config)
    sampler = call("sample", getattr(sgm.solve, chosen.method), options)
    sampler.stepping.levels(config.sde.build())
    return sampler


def build_recipe(config: Config, sde: sgm.sde.AbstractSDE) -> Recipe:
    """How the configuration trains."""
    if config.train.times == "ChainSteps":
        check_chain(config, sde, "train", "times")
    options = {"sigma_data": config.sigma_data} if config.train.weighting == "Karras" else {}
    return Recipe(
        sde=sde,
        weighting=getattr(sgm.training, config.train.weighting + "Weighting")(**options),
        times=getattr(sgm.training, config.train.times)(),
        objective=build_objective(config, sde),
        optimiser=adam(config.train.learning_rate, config.train.warmup, config.train.steps, config.train.clip),
        process_optimiser=adam(config.train.learning_rate, config.train.warmup, config.train.steps, math.inf),
        average_decay=config.train.average_decay,
        levels=config.data.levels,
        dequantisation=build_dequantisation(config),
        condition_dropout=config.train.condition_dropout,
        accumulate=config.train.accumulate,
        key=key_for(config, "training"),
    )


def build_dequantisation(config: Config) -> sgm.likelihood.AbstractDequantisation:
    """What makes real numbers of grey levels."""
    return getattr(sgm.likelihood, config.train.dequantisation + "Dequantisation")()


def build_trace(config: Config) -> sgm.likelihood.AbstractTrace:
    """How divergences are found in the evaluation."""
    options, shape = config.evaluate, config.data.shape
    if options.trace == "exact":
        return sgm.likelihood.Exact(options.chunk)
    if options.trace == "hutchinson":
        return sgm.likelihood.Hutchinson(options.probes, chunk=options.chunk)
    strides = (options.stride, options.stride, shape[-1]) if len(shape) == 3 else (options.stride,) * len(shape)
    return sgm.likelihood.Probing(strides, options.probes, options.chunk)


def load(run: str | Path, *, average: bool = True) -> tuple[sgm.sde.AbstractSDE, sgm.model.AbstractModel]:
    """`(sde, model)` of the newest checkpoint in the folder `run`; the averaged weights, or the raw ones.

    Raises `CheckpointError` where there is none, or it is damaged or of another model.
    """
    run = Path(run)
    if not has_config(run):
        raise CheckpointError(f"load: there is no run in {run} (config.json is missing); pass the folder of a run.")
    config = read_config(run)
    state = restore_state(run, config)
    return trained_process(config, state), state.average if average else state.model


def trained_process(config: Config, state: TrainState) -> sgm.sde.AbstractSDE:
    """The process of a configuration, with what of it is learned as it is in this state."""
    return eqx.combine(state.process, config.sde.build())


def restore_state(run: Path, config: Config) -> TrainState:
    """The newest training state of a run."""
    step = latest_step(run)
    if step is None:
        raise CheckpointError(f"{run}: the run has no checkpoint yet; train it first, with the stage `train`.")
    return restore_checkpoint(run, step, eqx.filter_eval_shape(initial_state, config))


def initial_state(config: Config, statistics: tuple[np.ndarray, np.ndarray] | None = None) -> TrainState:
    """The training state before the first step, whose network standardises its parameters by these statistics."""
    sde, model, _ = build(config)
    return build_recipe(config, sde).start(model if statistics is None else with_statistics(model, *statistics))


def begin_from(run: Path, config: Config) -> TrainState:
    """Build the training state before the first step of a run that goes on from another one.

    Arguments:
        run: the folder of the other run.
        config: what the new run is trained with.

    Returns:
        The averaged weights of the other run, with the statistics of its parameters and its trained schedule, if both
        runs train one; the optimiser and the step are at their start.

    Raises:
        ConfigError: where the two runs have other networks, naming the options.
        CheckpointError: where the folder has no run, or no checkpoint.
    """
    if not has_config(run):
        raise CheckpointError(f"--from {run}: there is no run (config.json is missing); pass the folder of a run.")
    saved = read_config(run)
    theirs, ours = (_network_settings(each) for each in (saved, config))
    names = [name for name in sorted(theirs | ours) if theirs.get(name) != ours.get(name)]
    if names:
        lines = (f"{name} ({theirs.get(name)}, not {ours.get(name)})" for name in names)
        raise ConfigError(
            f"--from {run}: that run has another network, in {', '.join(lines)}; pass the options that it was trained "
            "with, or leave --from out."
        )
    state = restore_state(run, dataclasses.replace(saved, network=config.network))
    sde = config.sde.build()
    if has_learned_part(sde) and state.process_opt_state is not None:
        sde = eqx.combine(state.process, sde)
    return build_recipe(config, sde).start(state.average)


def _network_settings(config):
    """All that the weights of a network depend on, by the names of the options."""
    free = ("type", "dropout", "remat", "precision")
    settings = {f"network.{name}": value for name, value in to_json(config.network).items() if name not in free}
    settings |= {"network": type(config.network).__name__.removesuffix("Config"), "prediction": config.prediction}
    settings |= {"data.shape": config.data.shape, "data.conditions": dict(config.data.conditions)}
    settings["train.condition_dropout > 0"] = config.train.condition_dropout > 0
    if config.prediction == "Karras":
        settings["sigma_data"] = config.sigma_data
    if config.prediction == "MeanCoefficient":
        settings["sde"] = to_json(config.sde)
    settings["variance"] = config.variance if getattr(sgm.model, config.variance).learned else "fixed"
    return settings


def check_readable(value: Any, name: str = "") -> None:
    """Check that a configuration, or the option `name` of one, comes back from the disk as it is.

    Raises:
        ConfigError: where it does not, so that a run could be trained but not loaded.
    """
    kind = type(value)
    if is_known(kind):
        for field in dataclasses.fields(value):
            check_readable(getattr(value, field.name), f"{name}.{field.name}".lstrip("."))
        return
    try:
        same = from_json(json.loads(json.dumps(to_json(value)))) == value
    except (TypeError, ConfigError):
        same = False
    if same:
        return
    lost = "cannot be read back from config.json, so that the run could not be resumed, sampled, evaluated or loaded"
    if kind.__module__ in ("builtins", "numpy"):
        raise ConfigError(f"{name} = {value!r}: it {lost}; pass a number, a string or a tuple of them.")
    raise ConfigError(
        f"{name}: the class {kind.__qualname__} {lost}; add it to the classes of sgm/config.py, or train by the "
        "library, with sgm.training.loop.train and load_run."
    )
