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
from sgm.model import AbstractModel

_PICTURES = "pictures"
# Pictures of training, which are many and say little of the model.
_LEFT_OUT = ("samples_step_", "parameters", "gradients")


def write_card(
    folder: Path,
    title: str,
    config: dict[str, Any],
    model: AbstractModel,
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
    experiment = _read(run, "experiment.json")
    found = _read(run, "evaluation.json") if report is None else report.to_json()
    pictures = _pictures(folder, run, report)
    front = _front(model, found, experiment, license, title)
    parts = [
        "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in front.items()) + "\n---",
        f"# {title}",
        *([about] if about else []),
        _usage(title, model),
        "## What it is\n\n" + _table(("", ""), _facts(config, model, experiment)),
    ]
    if found:
        rows = [(name, _value(row), row["unit"], row["note"]) for name, row in found["metrics"].items()]
        head = f"## Metrics\n\nOn {found['examples']} examples of the {found['split']} set.\n\n"
        parts.append(head + _table(("metric", "value", "unit", "note"), rows))
    if pictures:
        parts.append("## Pictures\n\n" + "\n\n".join(f"![{path.stem}]({_PICTURES}/{path.name})" for path in pictures))
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def _read(run, name) -> dict[str, Any]:
    path = None if run is None else run / name
    return json.loads(path.read_text()) if path is not None and path.is_file() else {}


def _pictures(folder, run, report):
    found = [] if run is None else sorted(run.glob("*.png"))
    found = [path for path in found if not path.name.startswith(_LEFT_OUT)]
    figures = {} if report is None else report.figures()
    if report is not None:  # Those of the run show another evaluation.
        found = [path for path in found if not path.name.startswith("evaluation")]
    if not found and not figures:
        return []
    (folder / _PICTURES).mkdir()
    for path in found:
        shutil.copyfile(path, folder / _PICTURES / path.name)
    for name, figure in figures.items():
        plot.save(figure, folder / _PICTURES / f"evaluation_{name}.png")
    return sorted((folder / _PICTURES).iterdir())


def _front(model, found, experiment, license, title):
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
        if row["value"] is not None
    ]
    if metrics:
        name = experiment["data"]["type"] if experiment else "data"
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


def _facts(config, model, experiment):
    """Rows of a table on the process, the model and its training."""
    weights = [leaf for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    facts = [("examples", f"of shape {model.shape}")]
    if experiment:
        facts.append(("data", in_words(experiment["data"])))
    facts.append(("process", in_words(config["sde"])))
    described = config["model"]
    while isinstance(described.get("model"), dict):  # of a guidance
        facts.append(("guidance", in_words({name: part for name, part in described.items() if name != "model"})))
        described = described["model"]
    if "network" in described:
        facts += [(name, in_words(described[name])) for name in ("network", "prediction")]
    else:
        facts.append(("model", in_words(described)))
    facts.append(("parameters", f"{sum(leaf.size for leaf in weights):,}"))
    conditions = getattr(model.conditioning, "parts", {})
    facts.append(("conditions", ", ".join(f"{name} ({size})" for name, size in conditions.items()) or "none"))
    mean, std = (np.asarray(part.value) for part in (model.units.mean, model.units.std))
    if mean.size <= 4 and std.size <= 4:
        facts.append(("units", f"mean {_listed(mean)}, standard deviation {_listed(std)} of the data"))
    for name in ("training", "loss", "sampler"):
        if name in experiment:
            facts.append((name, in_words(experiment[name])))
    return facts


def in_words(written: Any) -> str:
    """A description as the call that builds it, as "VP(schedule=Cosine(...), t0=1e-05, t1=1.0)".

    Arguments:
        written: What `sgm.serial.to_json` returned.

    Returns:
        The call. Arguments that are None are left out, and of long lists only the length is given.
    """
    if isinstance(written, list):
        return f"({len(written)} numbers)" if len(written) > 16 else f"({', '.join(map(in_words, written))})"
    if not isinstance(written, dict):
        return str(written)
    if written["type"] == "array":
        return f"array of shape {tuple(written['shape'])}"
    named = (f"{name}={in_words(part)}" for name, part in written.items() if name not in ("type", "module"))
    return f"{written['type']}({', '.join(part for part in named if not part.endswith('=None'))})"


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
