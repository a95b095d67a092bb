"""The stages of the command line, and the pictures that they leave in the folder of a run."""

import dataclasses
import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgm import plot
from sgm.data import AbstractDataset
from sgm.evaluation import Context, evaluate, write_columns
from sgm.experiment import Experiment
from sgm.likelihood import Exact, dequantise, log_prob
from sgm.model import AbstractModel, AbstractReverseModel
from sgm.nn import Units
from sgm.nn.condition import condition_from
from sgm.options import ExperimentError, options
from sgm.parallel.devices import mesh
from sgm.parallel.processes import is_first, local, share, wait_for_all
from sgm.random import normal
from sgm.runs import begin_from, is_begun, load_trained, write_experiment
from sgm.sample import sample
from sgm.sde import AbstractProcess, AbstractSDE
from sgm.serial import to_json
from sgm.solve import AbstractSamplingMethod, FixedSteps, ProbabilityFlow, ThetaGrid
from sgm.training import gradient_rms, latest_step, train

WEIGHTS = (0.0, 1.0, 3.0)


def picture_weights(run: Path, sde: AbstractSDE, model: AbstractModel, experiment: Experiment) -> None:
    """Draw the same noise under guidance of three weights, one a row; each column is of one condition."""
    n, guidance = experiment.data.conditioning.classes or 8, experiment.guidance
    assert guidance is not None
    print("guidance: compiling", flush=True)
    rows = [draw(sde, guidance(model, weight=weight), experiment, experiment.sampler, n) for weight in WEIGHTS]
    title = "guidance of weight " + ", ".join(f"{weight:g}" for weight in WEIGHTS)
    plot.save(plot.film_strip(jnp.stack([as_shown(experiment.data, row) for row in rows]), title), run / "guidance.png")


def check_stages(experiment: Experiment, stages: Sequence[str]) -> None:
    """Raise ValueError where a stage has no examples, or a metric cannot be evaluated, before anything is trained."""
    for stage, split in (("train", "train"), ("evaluate", experiment.evaluation.split)):
        if stage in stages and experiment.data.size(split) == 0:
            raise ExperimentError(f"data: the split {split!r} is empty; add examples to it, or run other --stages.")
    if "train" in stages and "evaluate" in stages:
        sde, model = experiment.skeleton(experiment.records)
        context = Context(
            sde,
            model,
            experiment.data,
            experiment.evaluation.split,
            experiment.sampler,
            experiment.dequantisation,
            experiment.key("evaluation"),
        )
        for metric in experiment.metrics:
            metric.check(context)


def train_stage(experiment: Experiment, run: Path, begins_from: Path | None, model_devices: int) -> None:
    """Train up to the configured step, and draw what is trained at every preview."""
    data, training = experiment.data, experiment.training
    if model_devices < 1 or jax.device_count() % model_devices:
        raise ExperimentError(
            f"--model-devices is {model_devices}, but there are {jax.device_count()} devices; pass a number that "
            "divides theirs."
        )
    sampled = experiment.sampler.process(experiment.sde)
    experiment.sampler.check(sampled)
    experiment.sampler.levels(sampled)
    run.mkdir(parents=True, exist_ok=True)
    wait_for_all("train: the folder is there")
    # A run that has begun goes on from its own checkpoint.
    begins = begins_from is not None and not is_begun(run)
    sde, model = begin_from(begins_from, experiment) if begins and begins_from else experiment.build()
    experiment.guided(model)  # It may refuse the model, better before the training than after.
    write_experiment(run, experiment)
    if (manner := plot.manner(data.shape)) is not None:
        print(f"pictures of examples: {manner}", flush=True)
    picture(run / "data.png", first_examples(data, 1024 if len(data.shape) == 1 else 64, model), "data", data)
    train(
        sde,
        model,
        data,
        experiment.key("training"),
        steps=training.steps,
        batch_size=training.batch_size,
        loss=experiment.loss,
        optimiser=training.optimiser,
        average_decay=training.average_decay,
        dequantisation=experiment.dequantisation,
        accumulate=training.accumulate,
        run=run,
        log_every=training.log_every,
        checkpoint_every=training.checkpoint_every,
        keep=training.keep,
        keep_best=training.keep_best,
        callbacks=[Preview(experiment, run)],
        mesh=mesh(model_devices),
    )


class Preview:
    """A callback of training that draws the model in the folder of the run."""

    def __init__(self, experiment: Experiment, run: Path):
        self.experiment, self.run, self.drawn = experiment, run, None

    def __call__(self, step: int, metrics: dict[str, float], state: Any) -> None:
        training = self.experiment.training
        number = step // training.preview_every
        due = (self.drawn is not None and number > self.drawn) or step % training.preview_every == 0
        self.drawn = number
        if not due and step != training.steps:
            return
        run, data = self.run, self.experiment.data
        # All else of the state may be too large for a device, and stays where it is.
        sde, average = local((state.process(self.experiment.sde), state.average))
        flow = ProbabilityFlow(diffrax.Heun(), FixedSteps(20, ThetaGrid()))
        method = flow if sde.has_flow else self.experiment.sampler
        x = draw(sde, average, self.experiment, method, n=min(16, self.experiment.drawing.n))
        picture(run / f"samples_step_{step:07d}.png", x, f"step {step}", data)
        weights = eqx.filter(state.model, eqx.is_inexact_array)
        plot.save(plot.arrays(weights, f"parameters, step {step}"), run / "parameters.png")
        plot.save(plot.arrays(gradient_rms(state), f"gradients, step {step}"), run / "gradients.png")
        plot.save(plot.process(sde), run / "process.png")
        if is_first():
            with (run / "metrics.jsonl").open() as file:
                lines = [json.loads(line) for line in file]
            plot.save(plot.objective(lines), run / "objective.png")


def sample_stage(experiment: Experiment, run: Path, begins_from: Path | None, model_devices: int) -> None:
    """Draw samples by the configured sampler and by the probability flow, and follow some paths."""
    (sde, plain), data, drawing = load_trained(run), experiment.data, experiment.drawing
    model = experiment.guided(plain)
    name, flow = type(experiment.sampler).__name__, adaptive_flow(drawing.tolerance)
    # Meters stand still while their solve is compiled.
    print(f"{name}: compiling", flush=True)
    by_sampler = draw(sde, model, experiment, experiment.sampler)
    panels = {name: by_sampler}
    if sde.has_flow:
        print("probability flow: compiling", flush=True)
        panels["probability flow"] = draw(sde, model, experiment, flow)
    if len(model.shape) == 1:
        panels = {"data": first_examples(data, drawing.n, model), **panels}
        plot.save(plot.examples(panels), run / "samples.png")
    else:
        for file, (title, x) in zip(("samples.png", "samples_flow.png"), panels.items(), strict=False):
            picture(run / file, x, title, data)
    of_paths = paths(sde, model, experiment, flow) if sde.has_flow else None
    if of_paths is not None:
        plot.save(of_paths, run / ("trajectories.png" if len(model.shape) == 1 else "film_strip.png"))
    if experiment.guidance is not None and "weight" in options(experiment.guidance.func) and len(model.shape) == 3:
        picture_weights(run, sde, plain, experiment)
    if sde.has_flow and plot.is_of_the_plane(model.shape) and not data.conditioning.parts:
        grid = plot.plane_grid(first_examples(data, 1024, model), 100)
        plot.save(plot.density(grid, jnp.exp(log_prob(sde, model, grid, trace=Exact()))), run / "density.png")
    figures = data.figures(
        sde, model, lambda fields, n: draw(sde, model, experiment, experiment.sampler, n, dict(fields))
    )
    for title, figure in figures.items():
        plot.save(figure, run / f"{title}.png")


def evaluate_stage(experiment: Experiment, run: Path, begins_from: Path | None, model_devices: int) -> None:
    """Evaluate the metrics on a split, print the report and write it."""
    chosen, data = experiment.evaluation, experiment.data
    sde, model = load_trained(run, precision=chosen.precision)
    # What was begun with the same options and weights goes on.
    parts = (experiment.metrics, dataclasses.replace(chosen, n=None), data, experiment.sampler, experiment.seed)
    identity = json.dumps([[to_json(part) for part in parts], latest_step(run)])
    folder = run / f"evaluation_{zlib.crc32(identity.encode()):08x}"
    report = evaluate(
        sde,
        model,
        data,
        experiment.metrics,
        experiment.key("evaluation"),
        split=chosen.split,
        n=chosen.n,
        batch_size=chosen.batch_size,
        sampler=experiment.sampler,
        dequantisation=experiment.dequantisation,
        folder=folder,
    )
    print(report)
    if is_first():
        (run / "evaluation.json").write_text(json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n")
        write_columns(run / "evaluation.parquet", {"index": np.arange(report.examples), **report.columns})
    if "log_prob" in report.columns:
        draw_likelihoods(run, data, chosen.split, report.columns)
    for name, figure in report.figures().items():
        plot.save(figure, run / f"evaluation_{name}.png")
    if folder.exists() and is_first():  # No metric, no folder.
        shutil.rmtree(folder)


def draw_likelihoods(run: Path, data: AbstractDataset, split: str, columns: dict[str, np.ndarray]) -> None:
    """Draw a histogram of log-likelihoods, and the signals, images and volumes that are least and most likely."""
    log_prob = columns["log_prob"]
    shown, quantity = log_prob, "log p(x), nats"
    if "bits_per_dim" in columns:
        shown, quantity = columns["bits_per_dim"], "bits/dim"
    plot.save(plot.histogram(shown, quantity), run / "evaluation_histogram.png")
    if len(data.shape) in (2, 3, 4):
        order = np.argsort(np.where(np.isfinite(log_prob), log_prob, np.inf))[: int(np.sum(np.isfinite(log_prob)))]
        rows = [int(row) for row in (*order[:8], *order[8:][-8:])]
        x = np.concatenate([data.rows(split, row, row + 1)[0] for row in rows])
        picture(run / "evaluation_extremes.png", real(data, x), "least likely first, most likely last", data)


def film_stage(experiment: Experiment, run: Path, begins_from: Path | None, model_devices: int) -> None:
    """Film examples that dissolve and samples that form; of points in the plane, also the paths of the flow."""
    (sde, plain), data, drawing = load_trained(run), experiment.data, experiment.drawing
    if not isinstance(sde, AbstractSDE):
        print(f"film: none, since {type(sde).__name__} is no process of real numbers", flush=True)
        return
    model, units = experiment.guided(plain), plain.units
    plane = plot.is_of_the_plane(model.shape)
    if not plane and len(model.shape) not in (2, 3, 4):
        print(f"film: none, since there is no picture of the shape {model.shape}", flush=True)
        return
    # At most 16 examples, so that each is seen; of points as many as show a density.
    x0 = units.standardise(first_examples(data, 1000 if plane else min(16, drawing.n), plain))
    noise = normal(experiment.key("film"), x0.shape)
    ts = ThetaGrid().times(sde, drawing.film)
    saveat = in_u(sde, ts, units)

    def noised(t):
        return units.restore((sde.alpha(t) * x0 + sde.sigma(t) * noise) / sde.rho(t))

    print("film: compiling", flush=True)
    forming = draw(sde, model, experiment, experiment.sampler, len(x0), saveat=saveat)
    # Data dissolve at twice the pace.
    dissolving = jnp.moveaxis(jax.vmap(noised)(ts[::-2]), 0, 1)
    frames = as_shown(data, jnp.concatenate([dissolving, forming], axis=1))
    plot.save_film(plot.film(frames), run / "film.gif")
    if plane:
        flow = draw(sde, model, experiment, adaptive_flow(drawing.tolerance), 200, saveat=saveat)
        plot.save_film(plot.growing_trajectories(flow), run / "film_flow.gif")


STAGES: dict[str, Callable[[Experiment, Path, Path | None, int], None]] = {
    "train": train_stage,
    "sample": sample_stage,
    "evaluate": evaluate_stage,
    "film": film_stage,
}


def adaptive_flow(tolerance: float) -> ProbabilityFlow:
    """The probability flow by adaptive steps."""
    return ProbabilityFlow(stepping=diffrax.PIDController(rtol=1e-7, atol=tolerance))


def draw(
    sde: AbstractProcess,
    model: AbstractReverseModel,
    experiment: Experiment,
    method: AbstractSamplingMethod,
    n: int | None = None,
    fields: dict[str, np.ndarray] | None = None,
    saveat: diffrax.SaveAt | None = None,
) -> Any:
    """Draw `n` samples, one for each of the conditions in `fields`, by default `conditions(data, n)`."""
    n = n or experiment.drawing.n
    cond = condition_from(conditions(experiment.data, n) if fields is None else fields)
    meter = diffrax.TqdmProgressMeter() if is_first() else None

    def of_part(each):
        keys, cond = each
        return sample(sde, model, keys, cond=cond, method=method, saveat=saveat, progress=meter)

    return share(of_part, (jax.random.split(experiment.key("samples"), n), cond))


def paths(sde: AbstractSDE, model: AbstractModel, experiment: Experiment, flow: ProbabilityFlow) -> Any:
    """Draw some paths, of points in the plane by the flow, of signals, images, volumes by the sampler; None of others.

    They are followed in u = x / rho, the same for every process, at equal steps of theta.
    """
    data, drawing = experiment.data, experiment.drawing
    saveat = in_u(sde, ThetaGrid().times(sde, max(1, drawing.frames - 1)), model.units)
    if not plot.is_of_the_plane(model.shape) and len(model.shape) not in (2, 3, 4):
        return None
    print("paths: compiling", flush=True)
    if plot.is_of_the_plane(model.shape):
        return plot.trajectories(draw(sde, model, experiment, flow, n=200, saveat=saveat))
    frames = draw(sde, model, experiment, experiment.sampler, n=min(6, drawing.n), saveat=saveat)
    if len(model.shape) == 2:
        return plot.signal_strip(frames, "from noise to data")
    shown = as_shown(data, frames)
    return plot.film_strip(plot.middle_slices(shown) if len(model.shape) == 4 else shown, "from noise to data")


def in_u(sde: AbstractSDE, ts: Any, units: Units) -> diffrax.SaveAt:
    """Save u = x / rho, in the data's units."""
    return diffrax.SaveAt(ts=ts, fn=lambda t, x, args: units.restore(units.standardise(x) / sde.rho(t)))


def conditions(data: AbstractDataset, n: int) -> dict[str, np.ndarray]:
    """Each class in turn, or the conditions of the first test examples, from the start again where they are fewer.

    Classes that come with other conditions are those of the examples. Where none are held out, training examples' are
    taken.
    """
    parts = data.conditioning.parts
    if list(parts) == ["label"]:
        return {"label": np.arange(n) % parts["label"]}
    if not parts:
        return {}
    _, fields = data.rows("test" if data.size("test") else "train", 0, n)
    return {name: np.resize(values, (n, *values.shape[1:])) for name, values in fields.items()}


def first_examples(data: AbstractDataset, n: int, model: AbstractReverseModel) -> Any:
    """The first `n` training examples, in their units; grey levels dequantised, unless the model is of levels."""
    x = data.rows("train", 0, n)[0]
    return x if model.takes_levels else real(data, x)


def real(data: AbstractDataset, x: np.ndarray) -> Any:
    """Records of a data set as real numbers: grey levels are dequantised."""
    return x if data.levels is None else dequantise(x, data.levels, jax.random.key(0), -0.5, data.levels - 0.5)


def as_shown(data: AbstractDataset, x: Any) -> Any:
    """Images and volumes scaled to [-1, 1], that of grey levels, or else of most training data; others as they are."""
    if len(data.shape) not in (3, 4):
        return x
    z = data.units.standardise(jnp.asarray(x, jnp.result_type(float)))
    if data.levels is not None:
        return z
    return z / float(jnp.quantile(jnp.abs(data.units.standardise(data.rows("train", 0, 64)[0])), 0.99))


def picture(path: Path, x: Any, title: str, data: AbstractDataset) -> None:
    """Save a picture of examples, if there is one of their shape (see `plot.manner`)."""
    if len(data.shape) in (1, 2, 3, 4):
        plot.save(plot.examples({title: as_shown(data, x)}), path)
