"""How fast the networks run, train and compile, as ratios.

    python tests/benchmarks/networks.py [unet] [dit] [compile] [space] [gpu]

By default `unet dit compile`. Whatever is compared is timed in turn, in rounds, and its medians are compared.

- `unet` counts operations by XLA's analysis of the compiled forward pass, in which padding costs nothing. But it counts
  the body of a loop once, and on a GPU it need not see into libraries; so `dit` and `gpu` count the matrix products and
  convolutions of the traced function, each as often as it runs, and nothing else.
- A training step, and a convolution with its gradients, are taken for three times the forward pass.
- The bare convolutions are plain `conv_general_dilated`, whose gradients are XLA's and not those of `sgm.nn`. `space`,
  of signals, maps on a torus and volumes, times those of `sgm.nn` beside them.
"""

import argparse
import collections
import concurrent.futures
import functools
import itertools
import math
import multiprocessing
import os
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm.training import Adam, LikelihoodWeighting, Loss, UniformLogSNR
from sgm.training.step import Recipe, train_step

# The first process leaves the memory of a GPU to those it starts.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

RECIPE = Recipe(sgm.VP(), Loss(LikelihoodWeighting(), UniformLogSNR()), Adam().build(10_000), jr.key(3))
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
# Dense bfloat16 operations a second, by how device_kind starts.
PEAKS = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100": 312e12}
STEPS = 10


def cifar_unet(**options):
    return sgm.nn.UNet(CIFAR, 128, (2, 2, 2), 4, attention=(16,), **options, key=jr.key(0))


def dit(preset, **options):
    return sgm.nn.DiT(CIFAR, **{**sgm.nn.DIT_PRESETS[preset], **options}, key=jr.key(0))


def randomise(network):
    """The network with noise on every parameter, so that none is zero."""
    keys = (jr.fold_in(jr.key(1), number) for number in itertools.count())
    arrays, rest = eqx.partition(network, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda leaf: leaf + 0.02 * jr.normal(next(keys), leaf.shape), arrays), rest)


def forward(network, shape, batch):
    """A batched call of the network, each example at its own noise level, and its arguments."""
    arrays, static = eqx.partition(network, eqx.is_array)
    level, u = jnp.linspace(-3.0, 3.0, batch), jr.normal(jr.key(2), (batch, *shape))
    return lambda arrays, level, u: jax.vmap(eqx.combine(arrays, static))(level, u), (arrays, level, u)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


convolve_with_gradients = jax.value_and_grad(lambda x, kernel: 0.5 * jnp.sum(convolve(x, kernel) ** 2), (0, 1))


def compiled(function, args):
    """The compiled function as one of no arguments, and its operations by XLA's analysis."""
    program = jax.jit(function).lower(*args).compile()
    return lambda: program(*args), program.cost_analysis()["flops"]


def training(network, shape, batch):
    """The arguments of the first training step."""
    x = jr.normal(jr.key(4), (batch, *shape))
    return (RECIPE, (x, None)), RECIPE.start(sgm.ScoreModel(network, shape=shape))


def trainer(network, shape, batch, steps=1):
    """What takes `steps` further training steps whenever it is called."""
    fixed, state = training(network, shape, batch)

    def train():
        nonlocal state
        for _ in range(steps):
            state, metrics = train_step(fixed, state)
        return state, metrics

    return train


def equations(jaxpr, times=1):
    """Every equation of a jaxpr, and how often it runs."""
    for equation in jaxpr.eqns:
        yield equation, times
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner, times * length)


def products(function, args):
    """A function's operations in products, and how often it convolves each pair of image and kernel shapes."""
    total, convolutions = 0, collections.Counter()
    for equation, times in equations(jax.make_jaxpr(function)(*args)):
        shapes = tuple(operand.aval.shape for operand in equation.invars)
        if equation.primitive.name == "convolve":
            (n, *sides, inputs), (size, *_, outputs) = shapes
            # A tap i pixels off the centre misses the image at i of its places, but on a torus.
            missed = 0 if equation.params["periodic"] else (size**2 - 1) // 4
            total += 2 * times * n * inputs * outputs * math.prod(side * size - missed for side in sides)
            convolutions[shapes] += times
        elif equation.primitive.name == "product":
            total += 2 * times * math.prod(shapes[0]) * shapes[1][-1]
        elif equation.primitive.name == "dot_general":
            summed = math.prod(shapes[0][axis] for axis in equation.params["dimension_numbers"][0][0])
            total += 2 * times * summed * equation.outvars[0].aval.size
    return total, convolutions


def wall(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def walls(timed, rounds):
    """The median seconds of one call of each, timed in turn; a quick one is called for 50 ms in each round."""
    calls = {label: math.ceil(0.05 / min(wall(function) for _ in range(2))) for label, function in timed.items()}
    seconds = collections.defaultdict(list)
    for _, (label, function) in itertools.product(range(rounds), timed.items()):
        seconds[label].append(sum(wall(function) for _ in range(calls[label])) / calls[label])
    return {label: statistics.median(times) for label, times in seconds.items()}


def table(head, *rows):
    for row in (head, ["---"] * len(head), *rows):
        cells = (cell if isinstance(cell, str) else f"{cell:.{1 if cell >= 10 else 2}f}" for cell in row)
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def measure_unet(name, network, shape, batch, rounds):
    network = randomise(network)
    call, args = forward(network, shape, batch)
    convolutions = products(call, args)[1]
    model, method = sgm.ScoreModel(network, shape=shape), sgm.EulerMaruyama(STEPS)
    timed, flops = {}, {}
    timed["forward"], once = compiled(call, args)
    timed["train"] = trainer(network, shape, batch)
    timed["sample"] = lambda: sgm.sample(sgm.VP(), model, jr.key(5), batch, method=method)
    for shapes in convolutions:
        operands = [jr.normal(jr.key(6), size) for size in shapes]
        timed[1, shapes], flops[shapes] = compiled(convolve, operands)
        timed[3, shapes], _ = compiled(convolve_with_gradients, operands)
    seconds = walls(timed, rounds)

    def speeds(chosen):
        """GFLOP/s of convolutions in the network's proportions, forward and with gradients."""
        work = sum(convolutions[shapes] * flops[shapes] for shapes in chosen) / 1e9
        return [n * work / sum(convolutions[shapes] * seconds[n, shapes] for shapes in chosen) for n in (1, 3)]

    widths = [shapes for shapes in convolutions if shapes[1] == (3, 3, shapes[0][-1], shapes[0][-1])]
    alone = {"3x3 of " + "x".join(map(str, shapes[0][1:])): speeds([shapes]) for shapes in widths}
    best, own = [max(column) for column in zip(*alone.values(), strict=True)], speeds(convolutions)
    alone[f"all {convolutions.total()} of the network"] = own
    outside, training = once / seconds["forward"] / 1e9, 3 * once / seconds["train"] / 1e9
    # A sampler ends with the evaluation that denoises.
    inside = (STEPS + 1) * once / seconds["sample"] / 1e9
    compared = (
        ("forward", outside, "the best width", best[0], "0.7"),
        ("forward", outside, "all its convolutions", own[0], ""),
        (f"{type(method).__name__}({STEPS})", inside, "forward", outside, "0.85"),
        ("training step", training, "the best width", best[1], "0.6"),
        ("training step", training, "all its convolutions", own[1], ""),
    )
    print(f"### {name}, batch {batch}: forward {once / 1e9:.1f} GFLOP in {1e3 * seconds['forward']:.0f} ms\n")
    head = "convolutions alone", "forward (GFLOP/s)", "with gradients (GFLOP/s)"
    table(head, *((label, *pair) for label, pair in alone.items()))
    head = "network", "GFLOP/s", "over that of", "ratio", "aim"
    table(head, *((label, speed, other, speed / of, aim) for label, speed, other, of, aim in compared))


def unet():
    print("## UNet\n")
    small = sgm.nn.UNet(MNIST, 64, (1, 2), 1, key=jr.key(0))
    measure_unet("MNIST UNet", small, MNIST, 8, rounds=7)
    measure_unet("MNIST UNet", small, MNIST, 32, rounds=7)
    measure_unet("CIFAR-10 UNet", cifar_unet(), CIFAR, 8, rounds=3)


def measure_space(name, network, batch, rounds):
    shape, network = network.shape, randomise(network)
    call, args = forward(network, shape, batch)
    flops, convolutions = products(call, args)
    timed = {"forward": compiled(call, args)[0], "train": trainer(network, shape, batch)}
    loss = jax.value_and_grad(lambda x, kernel: 0.5 * jnp.sum(ours(x, kernel) ** 2), (0, 1))
    ours = functools.partial(sgm.nn.convolution.convolve, periodic=network.periodic)
    for shapes in convolutions:
        operands = [jr.normal(jr.key(6), size) for size in shapes]
        for label, function in {"ours": ours, "gradients": loss, "XLA": convolve_any}.items():
            timed[label, shapes] = compiled(function, operands)[0]
    seconds = walls(timed, rounds)
    bare = {
        label: sum(count * seconds[label, shapes] for shapes, count in convolutions.items())
        for label in ("ours", "gradients", "XLA")
    }
    once, step = seconds["forward"], seconds["train"]
    speeds = flops / once / 1e9, flops / bare["ours"] / 1e9, flops / bare["XLA"] / 1e9
    return name, 1e3 * once, *speeds, bare["ours"] / once, bare["gradients"] / step


def convolve_any(x, kernel):
    space = "DHW"[-(x.ndim - 2) :]
    numbers = f"N{space}C", f"{space}IO", f"N{space}C"
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(space), "SAME", dimension_numbers=numbers)


def space(rounds=7):
    print("## UNets of one, two and three dimensions\n")
    networks = {
        "signals of 256, 8 channels, batch 32": (sgm.nn.UNet((256, 8), 64, (1, 2, 2), 1, key=jr.key(0)), 32),
        "maps of 32x32 on a torus, batch 16": (
            sgm.nn.UNet((32, 32, 1), 48, (1, 2), 1, periodic=True, key=jr.key(0)),
            16,
        ),
        "volumes of 16x16x16, batch 4": (sgm.nn.UNet((16, 16, 16, 1), 32, (1, 2), 1, key=jr.key(0)), 4),
    }
    head = "network", "forward (ms)", "forward (GFLOP/s)", "its convolutions", "XLA's", "ratio, aim 0.6", "of training"
    table(head, *(measure_space(name, *given, rounds) for name, given in networks.items()))


def products_alone(preset, batch, depth):
    """The four products of each block and nothing between them, in a scan; the same with gradients."""
    width, patch = (sgm.nn.DIT_PRESETS[preset][name] for name in ("width", "patch"))
    sizes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    keys = jr.split(jr.key(0), len(sizes))
    kernels = [jr.normal(key, (depth, *size)) / size[0] ** 0.5 for key, size in zip(keys, sizes, strict=True)]
    x = jr.normal(jr.key(1), (batch * CIFAR[0] * CIFAR[1] // patch**2, width))

    def block(x, kernels):
        attention, mixed, inlet, outlet = kernels
        x = x + (x @ attention)[:, :width] @ mixed
        return x + (x @ inlet) @ outlet, None

    def loss(kernels, x):
        return jnp.sum(jax.lax.scan(block, x, kernels)[0] ** 2)

    forward, gradients = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    return lambda: forward(kernels, x), lambda: gradients(kernels, x)


def measure_dit(preset, batch, rounds, depth):
    network = randomise(dit(preset, depth=depth))
    call, args = forward(network, CIFAR, batch)
    fixed, state = training(network, CIFAR, batch)

    @eqx.filter_jit
    def gradients(fixed, state):
        recipe, examples = fixed
        return recipe.errors_and_gradients(recipe.sde, state.model, recipe.drawn(recipe.sde, state, examples))

    timed = {"forward": compiled(call, args)[0], "step": trainer(network, CIFAR, batch)}
    timed["gradients"] = lambda: gradients(fixed, state)
    timed["bare"], timed["bare gradients"] = products_alone(preset, batch, depth)
    once, step, without, bare, bare_gradients = walls(timed, rounds).values()
    gflops = products(call, args)[0] / once / 1e9
    return preset, 1e3 * once, gflops, step / once, "3.3", without / once, bare_gradients / bare


def dits(presets=("S/4", "S/2", "B/4", "B/2"), batch=8, rounds=5, depth=4):
    print(f"## DiT of depth {depth}, 32x32x3, batch {batch}\n")
    head = (
        "preset",
        "forward (ms)",
        "forward (GFLOP/s)",
        "step over forward",
        "aim",
        "without the update",
        "bare products",
    )
    table(head, *(measure_dit(preset, batch, rounds, depth) for preset in presets))


def seconds_to_compile(arguments):
    """Of a training step, from tracing on."""
    jax.clear_caches()
    start = time.perf_counter()
    train_step.lower(*arguments).compile()
    return time.perf_counter() - start


def compilation(depths=(4, 24), rounds=3):
    print("## Compiling a training step on a batch of 8\n")
    cases = {f"DiT S/4, depth {depth}": training(dit("S/4", depth=depth), CIFAR, 8) for depth in depths}
    cases["CIFAR-10 UNet"] = training(cifar_unet(), CIFAR, 8)
    seconds_to_compile(next(iter(cases.values())))  # since the first of a process takes longer
    tried = [[seconds_to_compile(arguments) for arguments in cases.values()] for _ in range(rounds)]
    short, *others = map(statistics.median, zip(*tried, strict=True))
    rows = zip(cases, (short, *others), ("", others[0] / short, ""), ("", "1.2", "30 s"), strict=True)
    table(("network", "seconds", "ratio", "aim"), *rows)


def measure_gpu(build, batch, rounds=5):
    network, device = build(precision="bfloat16"), jax.devices()[0]
    try:
        rate = batch * STEPS / walls({"train": trainer(network, CIFAR, batch, STEPS)}, rounds)["train"]
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(batch), "out of memory", "", ""
    memory = device.memory_stats()["peak_bytes_in_use"] / 2**30
    flops = 3 * products(*forward(network, CIFAR, batch))[0] / batch
    peak = next((peak for kind, peak in PEAKS.items() if device.device_kind.startswith(kind)), None)
    return str(batch), rate, "unknown" if peak is None else flops * rate / peak, memory


def gpu(batches=(128, 256, 512)):
    print("## Training on a GPU, bfloat16, 32x32x3\n")
    if jax.default_backend() != "gpu":
        print("There is no GPU.\n")
        return
    spawn = multiprocessing.get_context("spawn")
    for name, build in (("DiT B/2", functools.partial(dit, "B/2")), ("CIFAR-10 UNet", cifar_unet)):
        print(f"### {name}\n")
        # A peak is that of a whole process, so each batch has one of its own.
        with concurrent.futures.ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:
            rows = processes.map(functools.partial(measure_gpu, build), batches)
            table(("batch", "images/s", "FLOP utilisation", "peak memory (GiB)"), *rows)


def main():
    parts = {"unet": unet, "dit": dits, "compile": compilation, "space": space, "gpu": gpu}
    parser = argparse.ArgumentParser(description="How fast the networks run, train and compile.")
    parser.add_argument("parts", nargs="*", choices=parts, help="by default unet, dit and compile")
    chosen = parser.parse_args().parts or ("unet", "dit", "compile")
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} CPUs\n")
    for part in chosen:
        parts[part]()


if __name__ == "__main__":
    main()
