"""Images a second that a stream of JPEGs yields, by the number of its workers, next to what one GPU needs.

    python tests/benchmarks/loader.py

A round is an epoch of parquet files, read and decoded; the fastest of interleaved rounds counts. Threads and processes
are decoding alone.
"""

import contextlib
import io
import multiprocessing
import os
import pathlib
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet

from sgm.data import ImageStream
from sgm.data.pixels import read_pixels

# Side of the stored images, side that is read, images in a round.
CASES = ((64, 64, 1000), (256, 256, 200), (256, 64, 100))
WORKERS, ROUNDS, BATCH = (1, 2, 4, 8, 16), 30, 50
# EDM's ADM network of 64x64 took 2,500 million images in 13 days on 32 A100 cards (README of github.com/NVlabs/edm).
NEED = 2.5e9 / (13 * 86_400 * 32)
FASTER = 10  # A card that is so many times as fast.


def jpegs(count, side):
    """Smooth colours with some noise, of about the size of photographs at quality 90."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), PIL.Image.Resampling.BICUBIC), float)
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        PIL.Image.fromarray(noisy).save(file, "JPEG", quality=90)
        yield file.getvalue()


def write(folder, images):
    features = datasets.Features({"image": datasets.Image()})
    for split, part in {"train": images, "test": images[:1]}.items():
        rows = datasets.Dataset.from_dict({"image": [{"bytes": image, "path": None} for image in part]}, features)
        pyarrow.parquet.write_table(rows.data.table, folder / f"{split}.parquet", row_group_size=50)


def decode(share, side):
    return [read_pixels(image, (side, side), 3, 256, "white") for image in share]


def fastest(tasks):
    """Seconds of the fastest round of each of some named tasks, which are timed in turn."""
    times = {name: [] for name in tasks}
    for number in range(ROUNDS):
        for name, task in tasks.items():
            start = time.perf_counter()
            task(number)
            times[name].append(time.perf_counter() - start)
    return {name: min(of_task) for name, of_task in times.items()}


def streams(folder, images, side):
    """Epochs of a stream, by the number of its workers."""

    def epoch(data):
        steps = len(images) // BATCH
        return lambda number: [data.batch(number * steps + step, BATCH, 0) for step in range(steps)]

    made = {n: ImageStream(path=str(folder), resolution=side, buffer=200, workers=n) for n in WORKERS if n <= cores()}
    return {f"{n} workers": epoch(data) for n, data in made.items()}


def pools(opened, images, side):
    """Decoding alone, in threads and in processes."""
    shares = [images[start : start + 10] for start in range(0, len(images), 10)]
    spawn = multiprocessing.get_context("spawn")
    made = {
        f"{n} {kind}": opened.enter_context(pool)
        for n in sorted({1, cores()})
        for kind, pool in (("threads", ThreadPoolExecutor(n)), ("processes", ProcessPoolExecutor(n, mp_context=spawn)))
    }
    sides = [side] * len(shares)
    return {name: lambda _, pool=pool: list(pool.map(decode, shares, sides)) for name, pool in made.items()}


def cores():
    return len(os.sched_getaffinity(0))


def main() -> None:
    datasets.disable_progress_bars()
    print(f"{cores()} cores; one A100 needs {NEED:.0f} images/s, a card {FASTER} times as fast {FASTER * NEED:.0f}")
    for stored, side, count in CASES:
        images = list(jpegs(count, stored))
        print(f"\nJPEGs of {stored}x{stored}, {np.mean([len(image) for image in images]):.0f} bytes, read at {side}")
        with contextlib.ExitStack() as opened:
            folder = pathlib.Path(opened.enter_context(tempfile.TemporaryDirectory())) / "images"
            folder.mkdir()
            write(folder, images)
            for name, seconds in fastest(streams(folder, images, side) | pools(opened, images, side)).items():
                rate = count / seconds
                print(f"  {name:14s} {rate:7.0f} images/s, {rate / NEED:5.1f} A100, {rate / FASTER / NEED:5.1f} faster")


if __name__ == "__main__":
    main()
