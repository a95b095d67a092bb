"""The metrics of a run's steps, in memory and on disk."""

import json
import math
import os
from pathlib import Path

import numpy as np

from sgm.parallel.processes import is_first
from sgm.training.checkpoint import CheckpointError, checkpoint_path, latest_step, saved_steps


class TrainingDiverged(Exception):
    """The loss or its gradient is no longer finite."""


class History:
    """The metrics of each step, written to `metrics.jsonl` where there is a folder, by the first process.

    Arguments:
        run: Folder of the run, or None.
        steps: Number of steps that are done. What the file has of later ones is cut off, so that a run that goes on
            writes each step once. It may have less, where a machine has lost its power.
    """

    def __init__(self, run: Path | None, steps: int):
        self.run, self.steps = run, steps
        self._shown: dict[str, float] = {}
        self._path = None if run is None else run / "metrics.jsonl"
        self._lines: list[dict[str, float]] = []
        if self._path is not None and self._path.exists():
            text = self._path.read_text().splitlines()
            self._lines = [line for line in map(_parsed, text) if line is not None and line["step"] <= steps]
            if is_first():
                part = self._path.with_suffix(".part")
                part.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
                part.replace(self._path)
        self._losses = {line["step"]: line["held_out_loss"] for line in self._lines if "held_out_loss" in line}

    def add(self, step: int, metrics: list[dict[str, np.ndarray]], *, durable: bool = False) -> dict[str, float]:
        """Add the metrics of the steps up to `step`, and return their means.

        Arguments:
            step: Last of these steps.
            metrics: Metrics of each of them.
            durable: Whether the file is on disk before this returns, as it must be before a checkpoint.

        Raises:
            TrainingDiverged: where one is not finite.
            CheckpointError: where the file cannot be written.
        """
        lines = []
        for number, of_step in enumerate(metrics, step - len(metrics) + 1):
            values = {name: float(value) for name, value in of_step.items()}
            if not all(math.isfinite(value) for value in values.values()):
                raise TrainingDiverged(_diverged(number, values))
            lines.append({"step": number, **values})
        self._lines += lines
        self._losses |= {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
        if self._path is not None and is_first():
            self._write(self._path, "".join(json.dumps(line) + "\n" for line in lines), durable)
        names = {name for line in lines for name in line if name != "step"}
        found = {name: [line[name] for line in lines if name in line] for name in sorted(names)}
        means = {name: float(np.mean(values)) for name, values in found.items()}
        self._shown |= {name: means[name] for name in ("loss", "held_out_loss") if name in means}
        return means

    def held_out_loss(self, step: int) -> float:
        """The held-out loss of a step; nan where it was not found."""
        return self._losses.get(step, math.nan)

    def _write(self, path: Path, text: str, durable: bool) -> None:
        try:
            with path.open("a") as file:
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"{path}: it cannot be written ({error.strerror}). Mend that, and begin again with the same arguments: "
                "the run goes on from its newest checkpoint."
            ) from error

    def text(self) -> str:
        """The last losses, for a progress bar."""
        return ", ".join(f"{name.removesuffix('_loss')} {value:.4f}" for name, value in self._shown.items())

    def arrays(self) -> dict[str, np.ndarray]:
        """All metrics by name, nan at steps that lack one."""
        names = dict.fromkeys(name for line in self._lines for name in line)
        return {name: np.asarray([line.get(name, math.nan) for line in self._lines]) for name in names}


def best_step(run: str | Path) -> int:
    """Find the checkpoint of least held-out loss of a run.

    Arguments:
        run: Folder of the run.

    Returns:
        Its step.

    Raises:
        CheckpointError: where no checkpoint has a held-out loss.

    Example:
        >>> sde, model = sgm.training.load_run("runs/maps", sde, model, step=best_step("runs/maps"))
    """
    run = Path(run)
    path, steps = run / "metrics.jsonl", saved_steps(run)
    lines = list(filter(None, map(_parsed, path.read_text().splitlines()))) if path.exists() else []
    losses = {
        line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line and line["step"] in steps
    }
    if not losses:
        raise CheckpointError(f"best_step: {run} has no checkpoint with a held-out loss; load the newest.")
    return int(min(losses, key=losses.__getitem__))


def _parsed(text: str) -> dict[str, float] | None:
    """A line of the file; None for one that was half written as a machine lost its power."""
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and "step" in line else None


def _diverged(step: int, values: dict[str, float]) -> str:
    said = " and the ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
    return f"train: at step {step} the {said}"


def with_remedy(error: TrainingDiverged, run: Path | None) -> TrainingDiverged:
    """The same error with the last good checkpoint of the run, and what to do."""
    good = "there is no checkpoint"
    if run is not None and (saved := latest_step(run)) is not None:
        good = f"the last good one is {checkpoint_path(run, saved)}"
    return TrainingDiverged(
        f"{error}; {good}; lower the learning rate or the clip, or look for bad values in the data; then begin in "
        "another folder."
    )
