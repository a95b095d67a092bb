"""Small runs of the command line, for tests of it."""

import json

import numpy as np
import PIL.Image

from sgm.cli import main

SMALL = (
    *("--training.steps", "6", "--training.batch-size", "8", "--training.checkpoint-every", "3"),
    *("--training.preview-every", "6", "--drawing.n", "4", "--drawing.frames", "3", "--drawing.tolerance", "1e-2"),
    *("--evaluation.n", "3", "--evaluation.batch-size", "3"),
)
STEPS = ("--sampler.steps", "5")
ROUGH = ("--metrics.LogLikelihood.tolerance", "1e-2")
TINY = ("--network.width", "16", "--network.depth", "1")


def command(folder, *arguments):
    return main(["--run", str(folder), *SMALL, *arguments])


def is_picture(path):
    pixels = np.asarray(PIL.Image.open(path).convert("L"))
    return pixels.size > 10_000 and pixels.std() > 1


def metrics_of(folder):
    return json.loads((folder / "evaluation.json").read_text())["metrics"]
