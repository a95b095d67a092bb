"""How long a transformer of the size of DiT-XL/2 takes to load, over reading its file.

The file, of 3 GB, has random weights, and is in the cache of the system. Minima of interleaved runs, in 9 GB of memory.

python tests/benchmarks/load_dit.py
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from sgm.interop.diffusers.dit import DiTTransformer2DModel
from sgm.interop.tensor_files import map_tensors
from sgm.interop.timestep.tensors import from_tensors, to_tensors

RUNS = 8


def write(path: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of random tensors in float32."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            file.write((0.02 * rng.standard_normal(shape, np.float32)).tobytes())
        os.fsync(file.fileno())  # what is written later would be measured


def seconds(load: Callable) -> float:
    """Wall time of a load, what is loaded being dropped afterwards."""
    start = time.perf_counter()
    jax.block_until_ready(load())
    return time.perf_counter() - start


def main() -> None:
    skeleton = eqx.filter_eval_shape(DiTTransformer2DModel, out_channels=8, key=jr.key(0))
    # Of one zero each, without memory.
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), skeleton)
    shapes = {name: tensor.shape for name, tensor in to_tensors(zeros).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "diffusion_pytorch_model.safetensors")
        write(path, shapes)
        loads = {
            "file, read": lambda: np.fromfile(path, np.uint8),
            "file, mapped and copied": lambda: np.array(np.memmap(path, np.uint8, "r")),
            "network": lambda: from_tensors(skeleton, map_tensors([Path(path)]), path),
        }
        times = {name: [] for name in loads}
        for _ in range(RUNS):
            for name, load in loads.items():
                times[name].append(seconds(load))
        size = os.path.getsize(path)
    read, copied, network = (min(taken) for taken in times.values())
    print(f"{size / 1e9:.2f} GB: read {read:.2f} s, mapped and copied {copied:.2f} s, network {network:.2f} s")
    print(f"ratio to the faster {network / min(read, copied):.2f}")


if __name__ == "__main__":
    main()
