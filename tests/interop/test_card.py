"""The card of a saved model: what it says, and the pictures that it shows."""

import json
import re

import equinox as eqx
import huggingface_hub
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm import plot
from sgm.evaluation import AbstractMetric, Report, Row
from sgm.model import ClassifierFree
from sgm.nn import MLP, Conditioning

NUMBERS = np.asarray(np.random.default_rng(0).normal(size=(90, 5)), np.float32)
REPORT = Report(
    "test", 100, (Row("bits/dim", 2.3434, 0.02, "bits", "uniform"), Row("broken", float("nan"))), {}, seconds=1.0
)


def model():
    network = MLP((2,), 8, 1, conditioning=Conditioning(params=2, null=True), key=jr.key(0))
    units = sgm.Units(jnp.asarray([3.0, -1.0]), jnp.asarray([0.1, 7.0]))
    return sgm.ScoreModel(network, sgm.model.Karras(0.7), shape=(2,), units=units)


def card(folder):
    found = huggingface_hub.ModelCard((folder / "README.md").read_text())
    return found.data, found.text


def test_the_card_says_what_the_model_is(tmp_path):
    folder = sgm.save(
        tmp_path / "maps", sgm.VP(), ClassifierFree(model(), 2.0), report=REPORT, about="Two numbers.", license="mit"
    )
    data, text = card(folder)
    assert data.library_name == "sgm" and data.license == "mit" and "diffusion" in data.tags
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [("bits/dim", 2.3434)]
    for words in (
        "# maps\n\nTwo numbers.\n",
        'sgm.load("maps")',
        "cond=sgm.Condition(params=...)",
        "| guidance | ClassifierFree(weight=2.0, interval=(0.0, inf), rescale=0.0) |",
        "| process | VP(schedule=Linear(beta_min=0.1, beta_max=20.0), t0=1e-05, t1=1.0) |",
        "| prediction | Karras(sigma_data=0.7) |",
        "| bits/dim | 2.343 ± 0.02 | bits | uniform |",
        "| broken | not finite |",
        "On 100 examples of the test set.",
    ):
        assert words in text
    weights = jax.tree.leaves(eqx.filter(model(), eqx.is_inexact_array))
    assert f"| parameters | {sum(leaf.size for leaf in weights):,} |" in text


def test_the_card_has_the_data_the_training_and_the_pictures_of_a_run(tmp_path):
    from functools import partial

    from sgm.experiment import Experiment
    from sgm.runs import write_experiment

    run = tmp_path / "run"
    run.mkdir()
    write_experiment(run, Experiment(sgm.data.Moons(), partial(MLP, width=8)))
    (run / "evaluation.json").write_text(json.dumps(REPORT.to_json()))
    for name in ("samples.png", "samples_step_0000500.png", "parameters.png", "evaluation_histogram.png"):
        (run / name).write_bytes(b"png")
    made = sgm.ScoreModel(MLP((2,), 8, key=jr.key(0)), shape=(2,))
    folder = sgm.save(tmp_path / "saved", sgm.VP(), made, run=run)
    _, text = card(folder)
    assert "| data | Moons(" in text and "| training | Training(steps=" in text and "| bits/dim | 2.343" in text
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["evaluation_histogram.png", "samples.png"]
    assert "![samples](pictures/samples.png)" in text
    # Saved again without them, they are no longer there.
    sgm.save(folder, sgm.VP(), made)
    assert "## Pictures" not in card(folder)[1]
    with pytest.raises(ValueError, match=r"save: there is no run .*; pass the folder of a run, or leave it out"):
        sgm.save(tmp_path / "other", sgm.VP(), made, run=tmp_path / "nowhere")


class Pictured(AbstractMetric):
    """A score, what it is compared with, and a figure."""

    def columns(self, context, x, fields, key):
        return {"norm": np.linalg.norm(x, axis=1)}

    def rows(self, context, columns):
        return [Row.mean("norm", columns["norm"]), Row("norm_of_nothing", 0.0, is_score=False)]

    def figures(self, context, columns):
        return {"norms": plot.histogram(columns["norm"], "norm")}


def pictures_of(folder):
    """Files that the card shows, by paths relative to it."""
    return [folder / path for path in re.findall(r"!\[\w+\]\(([^)]+)\)", (folder / "README.md").read_text())]


def test_a_report_names_its_data_and_lists_its_scores(tmp_path):
    how = {"n": 8, "progress": False}
    for name, data in {"Moons": sgm.data.Moons(), "Arrays": sgm.data.Arrays(NUMBERS[:, :2])}.items():
        made = sgm.ScoreModel(MLP((2,), 8, key=jr.key(0)), shape=(2,))
        report = sgm.evaluate(sgm.VP(), made, data, [Pictured()], jr.key(0), **how)
        folder = sgm.save(tmp_path / name, sgm.VP(), made, report=report)
        found, text = card(folder)
        assert f"On 8 examples of the test set of {name}." in text and f"| data | {name}()" in text
        assert "| norm_of_nothing | 0 |" in text
        assert [result.metric_type for result in found.eval_results] == ["norm"]
        assert {(result.dataset_type, result.dataset_name) for result in found.eval_results} == {(name.lower(), name)}
        assert pictures_of(folder) == [folder / "pictures" / "evaluation_norms.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures_of(folder))


@pytest.mark.slow
def test_the_card_has_the_training_of_a_run_of_train(tmp_path):
    run, data = tmp_path / "run", sgm.data.Arrays(NUMBERS[:, :2], params=NUMBERS[:, 2:])
    start = sgm.ScoreModel(MLP((2,), 8, conditioning=data.conditioning, key=jr.key(0)), data=data)
    how = {"steps": 3, "batch_size": 16, "optimiser": sgm.training.Adam(2e-3), "average_decay": 0.9, "run": run}
    _, made, _ = sgm.train(sgm.VP(), start, data, jr.key(1), **how, progress=False)
    folder = sgm.save(tmp_path / "saved", sgm.VP(), made, run=run)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for words in (
        "| optimiser | Adam(learning_rate=0.002,",
        "| loss | Loss(weighting=LikelihoodWeighting(),",
        "| average of the weights | of decay 0.9 |",
        "| a batch of x | float32(16, 2) |",
        "| a batch of cond | params: float32(16, 3) |",
        f"| steps | 3, the last with loss {last['loss']:.4g}",
    ):
        assert words in card(folder)[1]
    assert pictures_of(folder) == [folder / "pictures" / "objective.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures_of(folder))


def test_the_card_leaves_out_what_is_by_default(tmp_path):
    made = sgm.ScoreModel(MLP((2,), 8, key=jr.key(0)), shape=(2,))
    text = card(sgm.save(tmp_path / "saved", sgm.VP(), made))[1]
    assert "| network | MLP(shape=(2,), width=8) |" in text
    assert "| units | those of the network |" in text
    text = card(sgm.save(tmp_path / "units", sgm.VP(), model()))[1]
    assert "| units | x = mean + std z, mean 3, -1, std 0.1, 7 |" in text
