"""Train a diffusion model, draw samples from it and evaluate its likelihood: `python main.py --config NAME`."""

import argparse
import dataclasses
import difflib
import importlib.util
import itertools
import json
import math
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

import sgm
from sgm import plot
from sgm.build import (
    begin_from,
    build_dequantisation,
    build_recipe,
    build_sampler,
    build_trace,
    build_variance,
    check_readable,
    initial_state,
    key_for,
    restore_state,
    trained_process,
)
from sgm.config import Config, ConfigError, differences, has_config, read_config, to_json, write_config
from sgm.data import AbstractGaussianField, AbstractToy, Coins, DataUnavailable, GaussianFieldMap, prefetch
from sgm.evaluation.evaluate import average, evaluate, gaussian_bits_per_dim, uniform_bits_per_dim, write_columns
from sgm.likelihood import dequantise
from sgm.nn.condition import condition_from
from sgm.solve import FixedSteps, ThetaGrid
from sgm.training.checkpoint import CheckpointError, latest_step
from sgm.training.loop import TrainingDiverged, gradient_rms, train

CONFIGS = Path(__file__).parent / "configs"


def main(arguments: list[str]) -> int:
    """Run the stages that the command line asks for; the exit status."""
    try:
        default, rest = experiment(arguments)
        config = options(rest, default)
        run = Path(config.run)
        config = prepare(run, config, default, rest)
        if (manner := plot.manner(config.data.shape)) is not None:
            print(f"pictures of examples: {manner}", flush=True)
        for stage in config.stages:
            print(f"== {stage}: {run}", flush=True)
            STAGES[stage](run, config)
    except (ValueError, DataUnavailable, CheckpointError, TrainingDiverged) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 1
    return 0


def experiment(arguments: list[str]) -> tuple[Config, list[str]]:
    """The configuration that --config names, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default="digits")
    known, rest = parser.parse_known_args(arguments)
    names = sorted(path.stem for path in CONFIGS.glob("*.py"))
    if known.config not in names:
        close = difflib.get_close_matches(known.config, names)
        guess = f"did you mean {' or '.join(close)}? There are" if close else "there are"
        raise ConfigError(
            f"--config {known.config}: there is no configs/{known.config}.py; {guess} {', '.join(names)}."
        )
    spec = importlib.util.spec_from_file_location(known.config, CONFIGS / f"{known.config}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.config, run=f"runs/{known.config}"), rest


def options(arguments: list[str], default: Config) -> Config:
    """`default`, but for the options that are given."""
    names = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.py")))
    description = f"{__doc__} NAME is one of {names} (default: digits); the options below are those of NAME."
    return tyro.cli(
        tyro.conf.AvoidSubcommands[Config], default=default, args=arguments, prog="main.py", description=description
    )


def prepare(run: Path, config: Config, default: Config, arguments: list[str]) -> Config:
    """The configuration to go on with. A run with a checkpoint keeps what it was trained with."""
    if has_config(run) and latest_step(run) is not None:
        saved = read_config(run)
        conflicts = differences(config, saved)
        if "train" not in config.stages:
            # Options that are not given need not be repeated, but the data set must be that of the run.
            conflicts &= {"data.type", "data.name"}
            if not conflicts:
                config = options(arguments, saved)
                conflicts = differences(config, saved)
        if conflicts:
            names = sorted(name.removesuffix("_") for name in conflicts)
            raise ConfigError(
                f"{run} was begun with another configuration, in {', '.join(names)}; "
                "give the same --config and options to go on, or another folder with --run."
            )
    if "sample" in config.stages:
        build_sampler(config)
    if "train" in config.stages:
        check_readable(config)
        run.mkdir(parents=True, exist_ok=True)
        write_config(run, config)
    return config


def train_stage(run: Path, config: Config) -> None:
    """Train up to the configured step, and draw what is trained at every preview."""
    data, recipe = config.data, build_recipe(config, config.sde.build())
    if data.size(config.evaluate.split) == 0:
        raise ConfigError(f"data: the split {config.evaluate.split!r} is empty; add examples to it.")
    picture(run / "data.png", first_examples(data, 1024 if len(data.shape) == 1 else 64), "data", data)

    def make(step):
        x, fields = data.batch(step, config.train.batch_size, config.seed)
        return x, condition_from(fields)

    previews = itertools.count()

    def preview(state):
        if next(previews) == 0:
            tqdm.write("preview: compiling")
        sde, method = trained_process(config, state), sgm.ProbabilityFlow(diffrax.Heun(), FixedSteps(20, ThetaGrid()))
        x = draw(sde, state.average, config, method, n=min(16, config.sample.n))
        step = f"step {int(state.step)}"
        picture(run / f"samples_step_{int(state.step):07d}.png", x, step, data)
        weights = eqx.filter(state.model, eqx.is_inexact_array)
        plot.save(plot.arrays(weights, f"parameters, {step}"), run / "parameters.png")
        plot.save(plot.arrays(gradient_rms(state), f"gradients, {step}"), run / "gradients.png")
        plot.save(plot.process(sde), run / "process.png")
        with (run / "metrics.jsonl").open() as file:
            plot.save(plot.objective([json.loads(line) for line in file]), run / "objective.png")

    # A run that has begun goes on from its own checkpoint.
    begins_from = config.from_ if latest_step(run) is None else None
    train(
        recipe,
        begin_from(Path(begins_from), config) if begins_from else initial_state(config, data.statistics()),
        lambda start, stop: prefetch(make, start, stop),
        config.train.steps,
        run,
        log_every=config.train.log_every,
        checkpoint_every=config.train.checkpoint_every,
        sample_every=config.train.sample_every,
        on_sample=preview,
        held_out=held_out(config),
    )


def held_out(config: Config) -> tuple[np.ndarray, sgm.Condition | None] | None:
    """The first test examples, at most a batch of them and as many for each device; None where there are too few."""
    n = min(config.train.batch_size, config.data.size("test"))
    n -= n % jax.local_device_count()
    if n == 0:
        return None
    x, fields = config.data.rows("test", 0, n)
    return x, condition_from(fields)


def sample_stage(run: Path, config: Config) -> None:
    """Draw samples by the configured method and by the probability flow, and follow some paths."""
    state = restore_state(run, config)
    sde, model = trained_process(config, state), state.average
    method, name = build_sampler(config), config.sample.method
    tolerance = config.sample.tolerance
    flow = sgm.ProbabilityFlow(stepping=diffrax.PIDController(rtol=1e-7, atol=tolerance))
    # Meters stand still while their solve is compiled.
    print(f"{name}: compiling", flush=True)
    by_method = draw(sde, model, config, method)
    print("probability flow: compiling", flush=True)
    by_ode = draw(sde, model, config, flow)

    # Paths are followed in u = x / rho, the same for every process, at equal steps of theta.
    ts = ThetaGrid().times(sde, max(1, config.sample.frames - 1))
    saveat = diffrax.SaveAt(ts=ts, fn=lambda t, x, args: x / sde.rho(t))
    if len(model.shape) == 1:
        panels = {"data": first_examples(config.data, config.sample.n), name: by_method, "probability flow": by_ode}
        plot.save(plot.examples(panels), run / "samples.png")
    else:
        picture(run / "samples.png", by_method, name, config.data)
        picture(run / "samples_flow.png", by_ode, "probability flow", config.data)
    if model.shape == (2,):
        print("paths: compiling", flush=True)
        paths = draw(sde, model, config, flow, n=200, saveat=saveat)
        plot.save(plot.trajectories(paths), run / "trajectories.png")
    elif len(model.shape) in (2, 3):
        print("paths: compiling", flush=True)
        frames = draw(sde, model, config, method, n=min(6, config.sample.n), saveat=saveat)
        strip = plot.film_strip if len(model.shape) == 3 else plot.signal_strip
        plot.save(strip(frames, "from noise to data"), run / "film_strip.png")
    if isinstance(config.data, GaussianFieldMap):
        print("posteriors: compiling", flush=True)
        plot.save(posteriors(sde, model, config, config.data, method), run / "posteriors.png")


def evaluate_stage(run: Path, config: Config) -> None:
    """Evaluate the log-likelihood of a split, and print it beside its references."""
    data, chosen, key = config.data, config.evaluate, key_for(config, "evaluation")
    network = dataclasses.replace(config.network, precision=chosen.precision)
    state = restore_state(run, dataclasses.replace(config, network=network))
    sde, model = trained_process(config, state), state.average
    how: dict[str, Any] = {"accuracy": chosen.accuracy}
    if chosen.accuracy is None:
        how["controller"] = diffrax.PIDController(rtol=chosen.tolerance, atol=chosen.tolerance)
    # What was begun with the same options and weights goes on.
    identity = json.dumps([to_json(dataclasses.replace(chosen, n=None)), to_json(data), config.seed, latest_step(run)])
    folder = run / f"evaluation_{zlib.crc32(identity.encode()):08x}"
    result = evaluate(
        sde,
        model,
        data,
        split=chosen.split,
        n=chosen.n,
        batch_size=chosen.batch_size,
        key=key,
        dequantisation=build_dequantisation(config),
        samples=chosen.samples,
        folder=folder,
        trace=build_trace(config),
        **how,
    )
    n = len(result.log_prob)
    columns = {"index": np.arange(n), **result._asdict()}
    del columns["seconds"]
    if data.levels is not None:
        columns["bits_per_dim"] = np.asarray(sgm.bits_per_dim(result.log_prob, math.prod(data.shape), levels=None))
    write_columns(run / "evaluation.parquet", columns)
    asked = "tolerance" if chosen.accuracy is None else "accuracy"
    report: dict[str, Any] = {"split": chosen.split, "examples": n, "trace": chosen.trace}
    report |= {asked: getattr(chosen, asked), "log_prob": average(result.log_prob)}
    report["unfinished"] = int(np.sum(~np.isfinite(result.log_prob)))
    report["inaccurate"] = int(np.sum(~result.converged)) - report["unfinished"]
    report["evaluations"], report["seconds"] = float(np.mean(result.nfe)), result.seconds
    report["prior_mismatch"] = float(np.mean(sgm.prior_mismatch(sde, first_examples(data, 1024))))
    quantity, values = "log p(x), nats", result.log_prob
    if data.levels is not None:
        quantity, values = "bits/dim", columns["bits_per_dim"]
        report["bits_per_dim"] = average(values)
        report["gaussian"] = gaussian_bits_per_dim(data, chosen.split, n, key_for(config, "reference"))
        report["uniform"] = uniform_bits_per_dim(data.levels)
    plot.save(plot.histogram(values, quantity), run / "evaluation_histogram.png")
    if len(data.shape) in (2, 3):
        order = np.argsort(np.where(np.isfinite(result.log_prob), result.log_prob, np.inf))[: n - report["unfinished"]]
        rows = [int(row) for row in (*order[:8], *order[8:][-8:])]
        x = as_seen(data, np.concatenate([data.rows(chosen.split, row, row + 1)[0] for row in rows]))
        picture(run / "evaluation_extremes.png", x, "least likely first, most likely last", data)
    if isinstance(sde, sgm.DiscreteChain):
        report |= chain_bound(sde, model, config, n)
    if isinstance(data, AbstractGaussianField):
        x, fields = data.rows(chosen.split, 0, n)
        truth = lambda row: data.conditional_log_prob(*row)  # noqa: E731
        exact = jax.lax.map(truth, jax.tree.map(jnp.asarray, (x, fields)), batch_size=16)
        report["exact"] = average(np.asarray(exact))
    if isinstance(data, Coins):
        report["entropy"] = data.entropy
        report["entropy_bits_per_dim"] = data.entropy / (math.prod(data.shape) * math.log(2))
    if isinstance(data, AbstractToy):
        report["entropy"] = data.entropy
        grid = plot.plane_grid(first_examples(data, 1024), 100)
        plot.save(plot.density(grid, jnp.exp(sgm.log_prob(sde, model, grid, trace=sgm.Exact()))), run / "density.png")
    (run / "evaluation.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    shutil.rmtree(folder)
    print_report(report)


def chain_bound(chain: sgm.DiscreteChain, model, config: Config, n: int) -> dict[str, Any]:
    """The chain's variational bound on log p(x_0) of a split, in nats; for data of variance 1, also over a Gaussian."""
    data, options = config.data, config.evaluate
    values = []
    for start in tqdm(range(0, n, options.batch_size), desc="the chain's bound", unit="batch"):
        x, fields = data.rows(options.split, start, min(start + options.batch_size, n))
        key, key_levels = jr.split(jr.fold_in(key_for(config, "bound"), start))
        if data.levels is not None:
            x = dequantise(x, data.levels, key_levels)
        steps = min(options.bound_steps, chain.steps - 1)
        how = {"variance": build_variance(config), "steps": steps, "cond": condition_from(fields)}
        values.append(np.asarray(sgm.elbo(chain, model, jnp.asarray(x), key, **how)))
    values = np.concatenate(values)
    report = {"bound": average(values)}
    if abs(float(jnp.var(first_examples(data, 1024))) - 1) < 0.05:
        bits = np.asarray(sgm.bits_over_gaussian(values, math.prod(data.shape)))
        report["bits_over_gaussian"] = average(bits)
    return report


def print_report(report: dict) -> None:
    """The evaluation in words."""
    print(
        f"{report['split']} set, {report['examples']} examples, {report['trace']} trace, "
        + ", ".join(f"{name} {report[name]:.0e}" for name in ("tolerance", "accuracy") if name in report)
        + f", {report['evaluations']:.0f} evaluations each, {report['seconds']:.0f} s in this command"
    )
    if report["unfinished"]:
        print(f"  {report['unfinished']} solves did not finish and are left out of the means")
    if report["inaccurate"]:
        print(f"  {report['inaccurate']} values are not known to the accuracy asked for; evaluation.parquet says which")
    name = "log P(levels)" if "bits_per_dim" in report else "log p(x)"
    print(f"  {name:<19} {report['log_prob']} nats (mismatch of the prior {report['prior_mismatch']:.1g})")
    if "exact" in report:
        print(f"  exact log p(x)      {report['exact']} nats, of the same examples given their conditions")
    if "bound" in report:
        print(f"  the chain's bound   {report['bound']} nats on log p(x_0)")
    if "bits_over_gaussian" in report:
        print(f"  over a Gaussian     {report['bits_over_gaussian']} bits/dim, of the bound, for data of variance 1")
    if "entropy" in report:
        print(f"  entropy of the data {-report['entropy']:.4f} nats, with the sign of log p(x)")
    if "bits_per_dim" in report:
        print(f"  bits/dim            {report['bits_per_dim']}")
        if "entropy_bits_per_dim" in report:
            print(f"  entropy, bits/dim   {report['entropy_bits_per_dim']:.4f}")
        print(f"  Gaussian bits/dim   {report['gaussian'] or 'not fitted: too few images, or too many dimensions'}")
        print(f"  uniform bits/dim    {report['uniform']:.4f}")


def draw(
    sde, model, config: Config, method, n: int | None = None, saveat: diffrax.SaveAt | None = None, fields=None
) -> jax.Array:
    """`n` samples, one for each of the conditions in `fields`, by default `conditions(config.data, n)`."""
    n = n or config.sample.n
    cond = condition_from(conditions(config.data, n) if fields is None else fields)
    meter = diffrax.TqdmProgressMeter()
    key = key_for(config, "samples")
    return sgm.sample(sde, model, key, n, cond=cond, method=method, saveat=saveat, progress=meter)


def posteriors(sde, model, config: Config, data: GaussianFieldMap, method) -> Figure:
    """Of test maps in rows: the map, the field, the exact mean given the map, and four samples given the map."""
    rows, draws = 4, 4
    x, fields = data.rows("test", 0, rows)
    repeated = {name: np.repeat(values, draws, axis=0) for name, values in fields.items()}
    samples = draw(sde, model, config, method, n=rows * draws, fields=repeated)
    means, _ = jax.vmap(data.posterior)(jnp.asarray(fields["image"]))
    columns = [fields["image"][..., :1], x, means, *jnp.swapaxes(samples.reshape(rows, draws, *x.shape[1:]), 0, 1)]
    return plot.film_strip(jnp.stack(columns, axis=1), "map, field, exact mean, four samples")


def conditions(data, n: int) -> dict[str, np.ndarray]:
    """Each class in turn, or the conditions of the first test examples, from the start again where they are fewer."""
    if "classes" in data.conditions:
        return {"label": np.arange(n) % data.conditions["classes"]}
    _, fields = data.rows("test", 0, n) if data.conditions else (None, {})
    return {name: np.resize(values, (n, *values.shape[1:])) for name, values in fields.items()}


def first_examples(data, n: int) -> jax.Array:
    """The first `n` training examples as a model sees them."""
    return as_seen(data, data.rows("train", 0, n)[0])


def as_seen(data, x: np.ndarray) -> jax.Array:
    """Records of a data set as a model sees them."""
    return jnp.asarray(x) if data.levels is None else dequantise(x, data.levels, jr.key(0))


def picture(path: Path, x: jax.Array, title: str, data) -> None:
    """Save a picture of examples, if there is one of their shape (see `plot.manner`, which `main` prints).

    Images of real numbers, as fields, are scaled to the range of the data.
    """
    if len(data.shape) == 3 and data.levels is None:
        x = x / float(jnp.quantile(jnp.abs(first_examples(data, 64)), 0.99))
    if len(data.shape) in (1, 2, 3):
        plot.save(plot.examples({title: x}), path)


STAGES = {"train": train_stage, "sample": sample_stage, "evaluate": evaluate_stage}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
