"""What likelihoods cost, and what their error is, by how they are found.

    python tests/benchmarks/likelihood.py [traces] [solvers] [overhead] [exact] [devices] [gradients] [--run FOLDER]

By default all parts. `traces` and `solvers` need a trained model of the digits, as `python main.py` leaves it.
"""

import argparse
import collections
import itertools
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from networks import randomise, table, wall, walls

import sgm
from sgm.likelihood import dequantise
from sgm.runs import read_experiment

MIXTURE = sgm.model.GaussianMixture(jr.normal(jr.key(4), (5, 2)), jnp.linspace(0.1, 0.5, 5), jnp.full(5, 0.2))
SOLVERS = {
    "Heun": diffrax.Heun(),
    "Bosh3": diffrax.Bosh3(),
    "Tsit5": diffrax.Tsit5(),
    "Dopri5": diffrax.Dopri5(),
    "Dopri8": diffrax.Dopri8(),
}


def digits(run, n):
    """The process, the trained model, and `n` dequantised test images, in levels."""
    sde, model = sgm.load(run)
    levels, _ = read_experiment(Path(run)).data.rows("test", 0, n)
    return sde, model, dequantise(levels, 17, jr.key(0), -0.5, 16.5)


def controller(tolerance, **options):
    """With a tolerance that is traced, so that all share one compiled function."""
    return diffrax.PIDController(rtol=jnp.asarray(tolerance), atol=jnp.asarray(tolerance), **options)


def measure_traces(run):
    """Standard deviations of estimates of tr(integral of J), from the Jacobians along the paths of test images."""
    sde, model, x = digits(run, 48)
    x = model.units.standardise(x)
    dim, start, end = x[0].size, float(sde.theta(sde.t0)), float(sde.theta(sde.t1))

    def field(theta, u):
        return model.predict(theta, u.reshape(model.shape)).velocity.reshape(-1)

    def both(theta, state, args):
        return field(theta, state[0]), jax.jacfwd(lambda u: field(theta, u))(state[0])

    nodes = jnp.arctan(jnp.exp(jnp.linspace(np.log(np.tan(start)), np.log(np.tan(end)), 100))).clip(start, end)

    def path(x):
        solve = diffrax.diffeqsolve(
            *(diffrax.ODETerm(both), diffrax.Tsit5(), start, end, 0.01),
            (x.reshape(-1) / sde.rho(sde.t0), jnp.zeros((dim, dim))),
            stepsize_controller=controller(1e-4),
            saveat=diffrax.SaveAt(t1=True, subs=None, ts=nodes),
            max_steps=2000,
        )
        us, sums = solve.ys
        return sums[-1], jax.vmap(lambda theta, u: both(theta, (u, None), None)[1])(nodes, us[: len(nodes)])

    whole, along = jax.lax.map(path, x, batch_size=8)
    whole, along = np.asarray(whole, np.float64), np.asarray(along, np.float64)
    symmetric = (whole + whole.transpose(0, 2, 1)) / 2
    off = symmetric * (1 - np.eye(dim))
    images, _ = read_experiment(Path(run)).data.rows("train", 0, 1500)
    flat = np.asarray(dequantise(images, 17, jr.key(1)), np.float64).reshape(len(images), -1)
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False))
    ends = [np.cos(theta) ** 2 * values + np.sin(theta) ** 2 for theta in (start, end)]
    gaussian = vectors * (0.5 * np.log(ends[1] / ends[0])) @ vectors.T
    places = np.indices(x[0].shape).reshape(3, -1)

    def probing(stride):
        colours = np.ravel_multi_index((*(places[:2] % stride), places[2]), (stride, stride, 1))
        return 2 * np.sum((off * (colours[:, None] == colours)) ** 2, (1, 2)) * stride**2

    def hutch_plus_plus(sketch, probes, draws=40):
        """Meyer et al. 2021, of each Jacobian with the same random vectors along the path; the variance of a draw."""
        weights = np.gradient(np.asarray(nodes, np.float64))
        generator = np.random.default_rng(0)
        estimates = np.zeros((draws, len(along)))
        for draw in range(draws):
            vectors, test = (generator.choice([-1.0, 1.0], (dim, size)) for size in (sketch, probes))
            q, _ = np.linalg.qr(along @ vectors)
            rest = test - q @ (q.transpose(0, 1, 3, 2) @ test)
            traces = np.einsum("nkij,nkil,nklj->nk", q, along, q)
            traces += np.einsum("nkij,nkil,nklj->nk", rest, along, rest) / probes
            estimates[draw] = traces @ weights
        return estimates.var(0, ddof=1) * (2 * sketch + probes)

    signs = 2 * np.sum(off**2, (1, 2))
    rows = {
        "Hutchinson, normal": 2 * np.sum(symmetric**2, (1, 2)),
        "Hutchinson, signs": signs,
        "signs, less those of the training images' Gaussian": 2
        * np.sum((off - gaussian * (1 - np.eye(dim))) ** 2, (1, 2)),
        "Hutch++, 4 + 8 products": hutch_plus_plus(4, 4),
        "Hutch++, 10 + 10 products": hutch_plus_plus(5, 10),
        **{f"Probing(({stride}, {stride}, 1))": probing(stride) for stride in (2, 4)},
    }
    print(f"## Traces: {len(x)} test digits, D = {dim}; standard deviation of one product's worth of an estimate\n")
    table(
        ("estimate", "nats", "variance over that of signs"),
        *((name, float(np.mean(value)) ** 0.5, float(np.mean(value) / np.mean(signs))) for name, value in rows.items()),
    )


@eqx.filter_jit
def solve(sde, model, x, tolerance, solver, options, prior):
    steps = diffrax.PIDController(rtol=tolerance, atol=tolerance, **options)
    result = sgm.log_prob(sde, model, x, trace=sgm.Exact(), controller=steps, solver=solver, prior=prior, full=True)
    return result.value, result.nfe


def measure_solvers(run):
    sde, model, x = digits(run, 32)
    finest = {"trace": sgm.Exact(), "controller": controller(1e-6), "solver": diffrax.Dopri8()}
    by_solver = {label: (solver, {}) for label, solver in SOLVERS.items()}
    for label in ("Tsit5", "Dopri5"):
        by_solver[f"{label}, PI"] = (SOLVERS[label], {"pcoeff": 0.3, "icoeff": 0.4})
    start = MIXTURE.marginal(sde, sde.t0)
    points = start.sample(jr.key(0), 500)
    cases = {
        "digits": (model, x, sde.prior, sgm.log_prob(sde, model, x, **finest)),
        "mixture": (MIXTURE, points, MIXTURE.marginal(sde, sde.t1), jax.vmap(start.log_prob)(points)),
    }
    for name, (model, x, prior, truth) in cases.items():
        rows = []
        for (label, options), tolerance in itertools.product(by_solver.items(), (1e-3, 1e-4, 1e-5)):
            arguments = (sde, model, x, jnp.asarray(tolerance), *options, prior)
            jax.block_until_ready(solve(*arguments))
            began = time.perf_counter()
            values, nfe = jax.block_until_ready(solve(*arguments))
            wall = time.perf_counter() - began
            error = float(jnp.abs(values - truth).mean())
            rows.append((label, f"{tolerance:.0e}", float(nfe.mean()), str(nfe.max()), f"{error:.1e}", wall))
        print(f"## Solvers: {len(x)} examples of {name}, exact trace\n")
        table(("solver", "tolerance", "evaluations, mean", "most", "mean error, nats", "wall, s"), *rows)


def measure_overhead():
    print("## wall(log_prob) / (evaluations x wall(network with its products)), aim 1.15\n")
    rows = []
    for label, network, shape, batch, trace in (
        ("MLP, exact", sgm.nn.MLP((8, 8, 1), 320, 4, key=jr.key(0)), (8, 8, 1), 64, sgm.Exact()),
        ("MLP, 4 probes", sgm.nn.MLP((8, 8, 1), 320, 4, key=jr.key(0)), (8, 8, 1), 512, sgm.Hutchinson(4)),
        ("UNet, 4 probes", sgm.nn.UNet((28, 28, 1), 32, (1, 2), 1, key=jr.key(0)), (28, 28, 1), 4, sgm.Hutchinson(4)),
    ):
        sde, model = sgm.VP(), sgm.ScoreModel(randomise(network), sgm.model.Karras(0.5), shape=shape)
        x, keys = 0.5 * jr.normal(jr.key(1), (batch, *shape)), jr.split(jr.key(2), batch)

        @eqx.filter_jit
        def evaluation(theta, x, keys, model=model, trace=trace):
            def one(theta, x, key):
                return trace.along(lambda u: model.predict(theta, u).velocity, x, trace.draw(key, x))

            with jax.default_matmul_precision("highest"):
                return jax.vmap(one)(theta, x, keys)

        options = {"trace": trace, "controller": diffrax.PIDController(rtol=1e-3, atol=1e-3)}
        most = int(sgm.log_prob(sde, model, x, jr.key(2), full=True, **options).nfe.max())
        timed = {
            "network": lambda: evaluation(jnp.linspace(0.1, 1.5, batch), x, keys),  # noqa: B023
            "log_prob": lambda: sgm.log_prob(sde, model, x, jr.key(2), **options),  # noqa: B023
        }
        seconds = walls(timed, 5)
        ratio = seconds["log_prob"] / (most * seconds["network"])
        rows.append((f"{label}, batch {batch}", str(most), 1e3 * seconds["network"], seconds["log_prob"], ratio))
    table(("", "evaluations, most", "network with products (ms)", "log_prob (s)", "ratio"), *rows)


def measure_exact():
    print("## The exact trace at D = 3072, of one image\n")
    rows = []
    small = sgm.nn.UNet((32, 32, 3), 16, (1, 2), 1, key=jr.key(0))
    large = sgm.nn.UNet((32, 32, 3), 128, (2, 2, 2), 4, attention=(16,), key=jr.key(0))
    for label, network in (("0.2M", randomise(small)), ("61M", large)):
        model = sgm.ScoreModel(network, sgm.model.Karras(0.5), shape=(32, 32, 3))
        arrays, static = eqx.partition(model, eqx.is_array)
        x = jr.normal(jr.key(1), (32, 32, 3))

        def field(arrays, u, static=static):
            return eqx.combine(arrays, static).predict(jnp.asarray(0.7), u).velocity

        product = jax.jit(lambda arrays, x, v, field=field: jax.jvp(lambda u: field(arrays, u), (x,), (v,)))
        for chunk in (16, 85, 256):
            trace = sgm.Exact(chunk=chunk)

            def along(arrays, x, trace=trace, field=field):
                return trace.along(lambda u: field(arrays, u), x, None)

            program = jax.jit(along).lower(arrays, x).compile()
            memory = program.memory_analysis().temp_size_in_bytes / 2**20
            if label == "61M":
                rows.append((label, str(chunk), memory, "", ""))
                continue
            seconds = walls({"jvp": lambda: product(arrays, x, x), "exact": lambda: program(arrays, x)}, 3)  # noqa: B023
            rows.append((label, str(chunk), memory, seconds["exact"], seconds["exact"] / (3072 * seconds["jvp"])))
    table(("parameters", "chunk", "memory (MiB)", "an evaluation (s)", "over 3072 x (one jvp)"), *rows)


DEVICES = """
import time, jax, jax.numpy as jnp, jax.random as jr, sgm
from networks import randomise
network = randomise(sgm.nn.MLP((8, 8, 1), 320, 4, key=jr.key(0)))
model = sgm.ScoreModel(network, sgm.model.Karras(0.5), shape=(8, 8, 1))
x = 0.5 * jr.normal(jr.key(1), (256, 8, 8, 1))
calls = (
    lambda: sgm.log_prob(sgm.VP(), model, x, jr.key(2)),
    lambda: sgm.sample(sgm.VP(), model, jr.key(3), 256, method=sgm.EulerMaruyama(100)),
)
for call in calls:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    print(min(times[1:]))
"""


def measure_devices():
    print("## One device and eight virtual ones on the same processor, aim 1.2\n")
    seconds = collections.defaultdict(lambda: collections.defaultdict(list))
    for _ in range(3):
        for devices in (1, 8):
            flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
            options = {"env": os.environ | flags, "cwd": Path(__file__).parent, "text": True, "check": True}
            output = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, **options).stdout
            for call, value in zip(("log_prob", "sample"), output.split(), strict=True):
                seconds[call][devices].append(float(value))
    rows = []
    for call, of in seconds.items():
        one, eight = (statistics.median(of[devices]) for devices in (1, 8))
        rows.append((call, one, eight, eight / one))
    table(("256 examples", "one (s)", "eight (s)", "ratio"), *rows)


def measure_gradients():
    """Both ways of one call: the steps of a batch taken back together, and each solve by itself, with checkpoints."""
    print("## Gradients of the mean of log_prob\n")
    mlp = sgm.nn.MLP((8, 8, 1), 320, 4, key=jr.key(0))
    unet = sgm.nn.UNet((8, 8, 1), 16, (1, 2), 1, key=jr.key(0))
    rows = []
    for label, network, batch, trace, tolerance, by in (
        ("MLP, 1 probe", mlp, 100, sgm.Hutchinson(1), 1e-4, "parameters"),
        ("MLP, 1 probe", mlp, 100, sgm.Hutchinson(1), 1e-4, "x"),
        ("MLP, exact", mlp, 16, sgm.Exact(), 1e-2, "parameters"),
        ("UNet, 1 probe", unet, 32, sgm.Hutchinson(1), 1e-4, "parameters"),
    ):
        shape = (8, 8, 1)
        weights, rest = eqx.partition(sgm.ScoreModel(randomise(network), shape=shape), eqx.is_inexact_array)
        x = jr.normal(jr.key(1), (batch, *shape))

        def mean(weights, x, adjoint=None, rest=rest, trace=trace, tolerance=tolerance):
            options = {"trace": trace, "controller": controller(tolerance), "adjoint": adjoint}
            return sgm.log_prob(sgm.VP(), eqx.combine(weights, rest), x, jr.key(2), **options).mean()

        argument = ("parameters", "x").index(by)
        alone = partial(mean, adjoint=diffrax.RecursiveCheckpointAdjoint())
        functions = {
            "value": mean,
            "together": jax.value_and_grad(mean, argument),
            "value alone": alone,
            "alone": jax.value_and_grad(alone, argument),
        }
        programs = {name: jax.jit(function).lower(weights, x).compile() for name, function in functions.items()}
        memory = [programs[name].memory_analysis().temp_size_in_bytes / 2**20 for name in programs]
        # Minima of interleaved rounds, since other programs may run beside.
        rounds = [[wall(partial(program, weights, x)) for program in programs.values()] for _ in range(3)]
        best = np.min(rounds, axis=0).tolist()
        ratios = [seconds / best[0] for seconds in best[1:]]
        rows.append((f"{label}, batch {batch}", by, best[0], *ratios, *memory))
    times = ("value (s)", "gradient, over the value", "value alone", "gradient alone")
    table(("", "by", *times, *(f"{name} (MiB)" for name in functions)), *rows)


PARTS = {
    "traces": measure_traces,
    "solvers": measure_solvers,
    "overhead": measure_overhead,
    "exact": measure_exact,
    "devices": measure_devices,
    "gradients": measure_gradients,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--run", default="runs/digits")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} CPUs\n")
    for part in arguments.parts or PARTS:
        needs = (arguments.run,) if part in ("traces", "solvers") else ()
        PARTS[part](*needs)
