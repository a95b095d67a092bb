"""The command line: train a diffusion model, draw samples from it, evaluate it."""

import argparse
import dataclasses
import logging
import os
import platform
import signal
import sys
import traceback
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jax

from sgm.data import DataUnavailable
from sgm.experiment import Experiment, config_names, differences, load_config
from sgm.flags import from_flags
from sgm.options import ExperimentError
from sgm.parallel.meeting import initialise, leave_at_once
from sgm.parallel.processes import ProcessLost, is_first
from sgm.runs import is_begun, read_experiment
from sgm.stages import STAGES, check_stages
from sgm.training import CheckpointError, Preempted, TrainingDiverged, keep_memory

Stage = Literal["train", "sample", "evaluate", "film"]
_DESCRIPTION = """Train a diffusion model, draw samples from it and evaluate it. --config takes the name of a shipped
configuration ({names}) or the path of a Python file that defines `experiment`; the options below change it. Without it,
--data and --network say what is trained on what, and the other options have their defaults; with neither, the
configuration is digits. --version prints the version. --distributed joins the processes of a run, each started by this
command: those that Slurm, Kubernetes or a TPU pod says, or --distributed COORDINATOR PROCESSES INDEX, such as
10.0.0.1:1234 4 0."""


@dataclasses.dataclass(frozen=True)
class Command(Experiment):
    """Train a diffusion model, draw samples from it and evaluate it.

    Arguments:
        stages: Stages that are run, in this order.
        run: Folder of the run; by default runs/NAME, after the configuration or the data.
        from_: Folder of another run, whose averaged weights and trained schedule this one begins with.
        model_devices: Number of devices over which the state of the training is cut; with 1 it is whole on each.
    """

    stages: tuple[Stage, ...] = ("train", "sample", "evaluate")
    run: str | None = None
    from_: str | None = None
    model_devices: int = 1

    @property
    def experiment(self) -> Experiment:
        """The experiment alone."""
        return Experiment(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Experiment)})


def main(arguments: list[str] | None = None) -> int:
    """Run the stages that the command line asks for.

    Arguments:
        arguments: Arguments of the command line, by default those of this process.

    Returns:
        The exit status: 0, or 1 after an error. One that the library raises is printed in one line, one of a file of
        yours or of another library with its traceback.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # What Orbax cannot write is said in one line below.
    _keep_compilations()
    keep_memory()
    try:
        command, run = read_command(_join(sys.argv[1:] if arguments is None else arguments))
        check_stages(command.experiment, command.stages)
        for stage in command.stages:
            print(f"== {stage}: {run}", flush=True)
            begins_from = None if command.from_ is None else Path(command.from_)
            STAGES[stage](command.experiment, run, begins_from, command.model_devices)
    except Preempted as error:
        print(f"sgm: {error} The same command goes on.", file=sys.stderr)
        return 128 + signal.SIGTERM
    except (ValueError, TypeError, DataUnavailable, CheckpointError, TrainingDiverged, ProcessLost) as error:
        if not _is_of_the_library(error):
            traceback.print_exc()
        print(f"sgm: {error}", file=sys.stderr)
        leave_at_once()
        return 1
    except BrokenPipeError:  # As by `sgm --help | head`. What Python still has to print goes nowhere.
        _silence()
        return 1
    return 0


def _keep_compilations() -> None:
    """Keep compiled programs in the user's cache, where JAX is not told another place, for the next command."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sgm" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache / _processor()))
        jax.config.update("jax_compilation_cache_max_size", 2**31)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # Most of the time goes into small ones.


def _processor() -> str:
    """A name for the kind of processor, whose programs another kind may not be able to run."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return f"{platform.machine()}-{zlib.crc32(features.encode()):08x}"


def _silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _join(arguments: list[str]) -> list[str]:
    """Join the processes of the run, if there are several, and return the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--distributed", nargs="*")
    known, rest = parser.parse_known_args(arguments)
    given = known.distributed
    if given is None:
        return arguments
    if len(given) not in (0, 3) or not all(number.isdecimal() for number in given[1:]):
        raise ExperimentError(
            f"--distributed {' '.join(given)}: give nothing after it, or the address of the first process, the number "
            "of processes and the index of this one, as 10.0.0.1:1234 4 0."
        )
    initialise(*given[:1], *map(int, given[1:]))
    if not is_first():  # The first prints for all.
        _silence()
    return rest


def read_command(arguments: list[str]) -> tuple[Command, Path]:
    """Read the command line, and hold it against the run that may be in its folder.

    Returns:
        What is asked for, and the folder of the run.

    Raises:
        ExperimentError: for options that are wrong, or are not those of the run.
    """
    name, run, rest = _peek(arguments)
    names = config_names()
    description = _DESCRIPTION.format(names=", ".join(names)).replace("\n", " ")

    def read(default: Experiment | None) -> Command:
        return from_flags(Command, rest, default, prog="sgm", description=description)

    if run is not None and run.exists() and not run.is_dir():
        raise ExperimentError(f"--run {run} is a file; give the folder of a run, or one that is still to be made.")
    begun = run if run is not None and is_begun(run) else None
    if name is None and begun is None and not {"--data", "--network"} & set(rest):
        name = "digits"
    # A configuration comes first: the run may have classes of its file.
    command = read(load_config(name) if name is not None else None if begun is None else read_experiment(begun))
    if run is None:
        run = Path("runs") / (type(command.data).__name__.lower() if name is None else Path(name).stem)
    if is_begun(run):
        saved = read_experiment(run)
        conflicts = differences(command.experiment, saved)
        if "train" not in command.stages:
            # Options that are not given need not be repeated, but the data set must be that of the run.
            conflicts &= {"data", "data.name"}
            if not conflicts:
                command = read(saved)
                conflicts = differences(command.experiment, saved)
        if conflicts:
            raise ExperimentError(
                f"{run} was begun with another configuration, in {', '.join(sorted(conflicts))}; give the same "
                "--config and options to go on, or another folder with --run."
            )
    return command, run


def _is_of_the_library(error: BaseException) -> bool:
    """Whether an error is raised by a line of the library itself."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _peek(arguments):
    """The configuration and the run that are named, and the arguments without the former."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--version", action="version", version=f"sgm {version('sgm')}")
    known, rest = parser.parse_known_args(arguments)
    parser.add_argument("--run", type=Path)
    return known.config, parser.parse_known_args(arguments)[0].run, rest
