"""The card of a saved model, which the hub shows."""

import json
import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from sgm import plot
from sgm.evaluation import Report
from sgm.model import AbstractReverseModel
from sgm.options import ExperimentError, class_of, options, value_of
from sgm.serial import to_json

_PICTURES = "pictures"
# Pictures of training, which are many and say little of the model.
_LEFT_OUT = ("samples_step_", "parameters", "gradients")


def write_card(
    folder: Path,
    title: str,
    config: dict[str, Any],
    model: AbstractReverseModel,
    *,
    run: Path | None,
    report: Report | None,
    about: str,
    license: str | None,
) -> None:
    """Write the README of a saved model, and its pictures beside it.

    Arguments:
        folder: Folder of the saved model.
        title: Name of the model.
        config: Description of the process and the model, as JSON.
        model: Model.
        run: Folder of the run that trained it.
        report: Report of its evaluation; by default that of the run.
        about: Text below the title.
        license: Licence, by its name on the hub.

    Raises:
        ValueError: for a run that does not exist.
    """
    if run is not None and not run.is_dir():
        raise ValueError(f"save: there is no run {run}; pass the folder of a run, or leave it out.")
    experiment, history = _read(run, "experiment.json"), _lines(run)
    found = _read(run, "evaluation.json") if report is None else report.to_json()
    evaluated = _data(experiment, report)
    pictures = _pictures(folder, run, report, history)
    front = _front(model, found, evaluated, license, title)
    facts = [*_facts(config, model, experiment.get("data", evaluated)), *_training(run, experiment, history)]
    parts = [
        "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in front.items()) + "\n---",
        f"# {title}",
        *([about] if about else []),
        _usage(title, model),
        "## What it is\n\n" + _table(("", ""), facts),
    ]
    if found:
        rows = [(name, _value(row), row["unit"], row["note"]) for name, row in found["metrics"].items()]
        of_data = f" of {evaluated['type']}" if evaluated else ""
        head = f"## Metrics\n\nOn {found['examples']} examples of the {found['split']} set{of_data}.\n\n"
        parts.append(head + _table(("metric", "value", "unit", "note"), rows))
    if pictures:
        parts.append("## Pictures\n\n" + "\n\n".join(f"![{path.stem}]({_PICTURES}/{path.name})" for path in pictures))
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def _read(run, name) -> dict[str, Any]:
    path = None if run is None else run / name
    return json.loads(path.read_text()) if path is not None and path.is_file() else {}


def _lines(run) -> list[dict[str, float]]:
    """The metrics of each step of a run."""
    path = None if run is None else run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path is not None and path.is_file() else []


def _data(experiment, report) -> dict[str, Any]:
    """The description of the data of a report, or else of a run; it is empty where it is not known."""
    if report is None or report.context is None:
        return experiment.get("data", {})
    try:
        return to_json(report.context.data)
    except ExperimentError:  # of data that hold arrays
        return {"type": type(report.context.data).__name__}


def _pictures(folder, run, report, history):
    found = [] if run is None else sorted(run.glob("*.png"))
    found = [path for path in found if not path.name.startswith(_LEFT_OUT)]
    figures = {} if report is None else {f"evaluation_{name}": drawn for name, drawn in report.figures().items()}
    if report is not None:  # Those of the run show another evaluation.
        found = [path for path in found if not path.name.startswith("evaluation")]
    if history and not any(path.name == "objective.png" for path in found):
        figures["objective"] = plot.objective(history)
    if not found and not figures:
        return []
    (folder / _PICTURES).mkdir()
    for path in found:
        shutil.copyfile(path, folder / _PICTURES / path.name)
    for name, figure in figures.items():
        plot.save(figure, folder / _PICTURES / f"{name}.png")
    return sorted((folder / _PICTURES).iterdir())


def _front(model, found, evaluated, license, title):
    """The card's metadata, by the hub's names; JSON is YAML as well."""
    kind = {2: "signals", 3: "images", 4: "volumes"}.get(len(model.shape), "tabular")
    front: dict[str, Any] = {"library_name": "sgm", "tags": ["diffusion", "jax", "equinox", kind]}
    if license is not None:
        front["license"] = license
    is_conditional = bool(getattr(model.conditioning, "parts", ()))
    task = "unconditional-image-generation" if kind == "images" and not is_conditional else "other"
    if task != "other":
        front["pipeline_tag"] = task
    metrics = [
        {"type": name, "value": row["value"], "name": name}
        for name, row in (found or {"metrics": {}})["metrics"].items()
        if row["value"] is not None and row.get("is_score", True)
    ]
    if metrics:
        name = evaluated.get("type", "data")
        dataset = {"type": name.lower(), "name": name, "split": found["split"]}
        front["model-index"] = [
            {"name": title, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}
        ]
    return front


def _usage(title, model):
    parts = getattr(model.conditioning, "parts", {})
    cond = ", cond=sgm.Condition(" + ", ".join(f"{name}=..." for name in parts) + ")" if parts else ""
    lines = (
        "import jax.random as jr",
        "import sgm",
        "",
        f'sde, model = sgm.load("{title}")  # this folder, or its name on the hub',
        f"x = sgm.sample(sde, model, jr.key(0), 16{cond})",
    )
    return "\n".join(("```python", *lines, "```"))


def _facts(config, model, data):
    """Rows of a table on the data, the process and the model."""
    weights = [leaf for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    facts = [("examples", f"of shape {model.shape}")]
    if data:
        facts.append(("data", in_words(data)))
    facts.append(("process", in_words(config["sde"])))
    described, part = config["model"], model
    while isinstance(described.get("model"), dict):  # of a guidance
        facts.append(("guidance", in_words({name: word for name, word in described.items() if name != "model"})))
        described, part = described["model"], part.model
    if "network" in described:
        facts.append(("network", in_words(described["network"], part.network)))
        if "prediction" in described:  # A model of categories has none.
            facts.append(("prediction", in_words(described["prediction"])))
    else:
        facts.append(("model", in_words(described)))
    facts.append(("parameters", f"{sum(leaf.size for leaf in weights):,}"))
    conditions = getattr(model.conditioning, "parts", {})
    facts.append(("conditions", ", ".join(f"{name} ({size})" for name, size in conditions.items()) or "none"))
    mean, std = (np.asarray(part.value) for part in (model.units.mean, model.units.std))
    if mean.size <= 4 and std.size <= 4:
        is_own = np.all(mean == 0) and np.all(std == 1)
        how = "those of the network" if is_own else f"x = mean + std z, mean {_listed(mean)}, std {_listed(std)}"
        facts.append(("units", how))
    return facts


def _training(run, experiment, history):
    """Rows of a table on the training: what an experiment says of it, or else the fingerprint of `sgm.train`."""
    facts = [(name, in_words(experiment[name])) for name in ("training", "loss", "sampler") if name in experiment]
    if not experiment and (begun := _read(run, "fingerprint.json")):
        recipe, batch = begun["recipe"], begun["data"]
        facts += [(name, in_words(recipe[name])) for name in ("optimiser", "loss") if isinstance(recipe[name], dict)]
        facts.append(("average of the weights", f"of decay {recipe['average_decay']}"))
        facts += [(f"a batch of {name}", words) for name in ("x", "cond") if (words := _shapes(batch[name]))]
    if history:
        last = {name: row[name] for row in history for name in ("loss", "held_out_loss") if name in row}
        words = ", ".join(f"{name.replace('_', '-', 1).replace('_', ' ')} {value:.4g}" for name, value in last.items())
        facts.append(("steps", f"{int(history[-1]['step']):,}, the last with {words}"))
    return facts


def _shapes(described):
    """The types and shapes of arrays in a description of `sgm.training.fingerprint`, as "label: int32(16,)"."""
    if not isinstance(described, dict):
        return ""
    if "shape" in described:
        return described["shape"]
    shapes = ((name, _shapes(part)) for name, part in described.items())
    return ", ".join(f"{name}: {words}" for name, words in shapes if words)


def in_words(written: Any, made: Any = None) -> str:
    """A description as the call that builds it, as "VP(schedule=Cosine(...), t0=1e-05, t1=1.0)".

    Arguments:
        written: What `sgm.serial.to_json` returned.
        made: Object that it describes, whose arguments are left out where they have their defaults; None for all.

    Returns:
        The call. Arguments that are None are left out, and of long lists only the length is given.
    """
    if isinstance(written, list):
        listed = ", ".join(map(in_words, written)) + "," * (len(written) == 1)
        return f"({len(written)} numbers)" if len(written) > 16 else f"({listed})"
    if not isinstance(written, dict):
        return str(written)
    if written["type"] == "array":
        return f"array of shape {tuple(written['shape'])}"
    kept = {} if made is None else options(class_of(made), whole=True)
    named = (
        f"{name}={in_words(part, value_of(made, kept[name]) if kept else None)}"
        for name, part in written.items()
        if name not in ("type", "module") and not (kept and _is_default(kept[name], part))
    )
    return f"{written['type']}({', '.join(part for part in named if not part.endswith('=None'))})"


def _is_default(option, written):
    if option.is_required:
        return False
    try:
        return to_json(option.default, whole=True) == written
    except ExperimentError:  # of a default that has no form as text
        return False


def _value(row):
    if row["value"] is None:
        return "not finite"
    number = f"{row['value']:.4g}"
    return number if row["stderr"] is None else f"{number} ± {row['stderr']:.2g}"


def _listed(numbers):
    return ", ".join(f"{number:.4g}" for number in numbers.ravel())


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(entry).replace("|", "\\|") for entry in line) + " |" for line in lines)
