"""The forward pass and the training step of a UNet and a DiT, beside those of diffusers in PyTorch, on the same cores.

    pip install "sgm[torch]"
    python tests/benchmarks/against_torch.py [unet] [dit] [--cores 1] [--seconds 60]

Both libraries run in one process, float32, channels-last, in turn; the least time of `--seconds` of each is compared,
which other work on the machine disturbs least. The process keeps its memory from step to step, as the command line of
sgm does, unless `--give-back`. A step is the loss of noise, its gradients, their clipping and Adam;
ours also averages the weights. The networks are not quite the same, so the operations in products and convolutions of
each are counted, and speeds compared beside times.
"""

import argparse
import itertools
import os
import time


def options():
    parser = argparse.ArgumentParser(description="A UNet and a DiT, beside those of diffusers in PyTorch.")
    parser.add_argument("parts", nargs="*", help="unet, dit; by default both")
    parser.add_argument("--cores", type=int, default=1, help="Number of cores.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Seconds for each thing that is timed.")
    parser.add_argument("--give-back", action="store_true", help="Give the memory of a step back to Linux after it.")
    return parser.parse_args()


OPTIONS = options()
# Before the libraries are loaded, which count the cores that they may use.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: OPTIONS.cores])
os.environ["OMP_NUM_THREADS"] = str(OPTIONS.cores)

import diffusers  # noqa: E402
import jax  # noqa: E402
import networks  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count  # noqa: E402

import sgm  # noqa: E402

# The counter knows attention on a GPU alone.
UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *rest, **options: (
        sdpa_flop_count(query, key, value)
    )
}


def of_sgm(network, shape, batch):
    """What runs forward and what trains, and the operations of a forward pass."""
    network = networks.randomise(network)
    call, args = networks.forward(network, shape, batch)
    return networks.compiled(call, args)[0], networks.trainer(network, shape, batch), networks.products(call, args)[0]


def of_torch(network, shape, batch, *conditions):
    """The same of a network in PyTorch."""
    *space, channels = shape
    network = network.to(memory_format=torch.channels_last)
    x = torch.randn(batch, channels, *space).to(memory_format=torch.channels_last)
    noise, times = torch.randn_like(x), torch.linspace(0, 999, batch).long()
    optimiser = torch.optim.Adam(network.parameters(), 2e-4)

    def forward():
        with torch.no_grad():
            return network(x, times, *conditions).sample

    def train():
        optimiser.zero_grad()
        angle = (times[:, None, None, None] + 1) / 1001 * torch.pi / 2
        out = network(torch.cos(angle) * x + torch.sin(angle) * noise, times, *conditions).sample
        torch.mean((out - noise) ** 2).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        forward()
    return forward, train, counter.get_total_flops()


def least(functions, seconds):
    """The least seconds of each, timed in turn."""
    best = [float("inf")] * len(functions)
    for function in functions:
        networks.wall(function)
    end = time.perf_counter() + seconds * len(functions)
    for number in itertools.cycle(range(len(functions))):
        best[number] = min(best[number], _wall(functions[number]))
        if number == len(functions) - 1 and time.perf_counter() > end:
            return best


def _wall(function):
    start = time.perf_counter()
    result = function()
    if not isinstance(result, torch.Tensor):
        jax.block_until_ready(result)
    return time.perf_counter() - start


def compare(name, ours, theirs):
    (*our_functions, our_work), (*their_functions, their_work) = ours, theirs
    seconds = least([*our_functions, *their_functions], OPTIONS.seconds)
    rows = []
    for label, times, us, them in zip(("forward", "training step"), (1, 3), seconds[:2], seconds[2:], strict=True):
        speeds = times * our_work / us / 1e9, times * their_work / them / 1e9
        rows.append((label, f"{1e3 * us:.0f}", f"{1e3 * them:.0f}", *speeds, us / them, speeds[1] / speeds[0]))
    print(f"## {name}: forward {our_work / 1e9:.1f} GFLOP, diffusers' {their_work / 1e9:.1f}\n")
    head = "", "ms", "diffusers ms", "GFLOP/s", "diffusers GFLOP/s", "ratio of times", "at equal work"
    networks.table(head, *rows)
    step_over_forward = seconds[1] / seconds[0], seconds[3] / seconds[2]
    print("Step over forward: {:.2f}, diffusers {:.2f}.\n".format(*step_over_forward), flush=True)


def unet(batch=32):
    ours = sgm.nn.UNet(networks.MNIST, 64, (1, 2), 1, key=jax.random.key(0))
    theirs = diffusers.UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    compare(
        f"UNet, 28x28x1, 64 and 128 channels, batch {batch}",
        of_sgm(ours, networks.MNIST, batch),
        of_torch(theirs, networks.MNIST, batch),
    )


def dit(batch=8, depth=4):
    preset = sgm.nn.DIT_PRESETS["S/2"]
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=preset["heads"],
        attention_head_dim=preset["width"] // preset["heads"],
        in_channels=3,
        num_layers=depth,
        sample_size=32,
        patch_size=preset["patch"],
        num_embeds_ada_norm=1000,
    )
    theirs.eval()  # else labels are dropped at random
    compare(
        f"DiT S/2 of depth {depth}, 32x32x3, batch {batch}",
        of_sgm(networks.dit("S/2", depth=depth), networks.CIFAR, batch),
        of_torch(theirs, networks.CIFAR, batch, torch.zeros(batch, dtype=torch.long)),
    )


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(OPTIONS.cores)
    kept = not OPTIONS.give_back and sgm.training.keep_memory()
    versions = {"jax": jax.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__}
    print(", ".join(map(" ".join, versions.items())) + f", cores: {OPTIONS.cores}, memory kept: {kept}\n")
    parts = {"unet": unet, "dit": dit}
    for part in OPTIONS.parts or parts:
        parts[part]()
