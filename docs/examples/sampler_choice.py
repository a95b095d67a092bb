"""Draw how good samplers are at so many evaluations, from the table of docs/sampling.md.

    python docs/examples/sampler_choice.py

The numbers are those of `python tests/benchmarks/samplers.py --run runs/digits`, which the page has. Drawn in
figs/sampler_choice.png.
"""

import re
from pathlib import Path

from sgm import plot
from sgm.plot.base import empty_figure

ROW = re.compile(r"^\| ([\w ,]+?) \| (\d*) ?\| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
ROOT = Path(__file__).parents[2]


def rows(page: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Evaluations, distance and standard error, of each sampler of the page; 0 evaluations of the training images."""
    table = page.read_text().split("| samples | evaluations | distance | standard error |\n")[1].split("\n\n")[0]
    found: dict[str, list[tuple[int, float, float]]] = {}
    for name, evaluations, distance, error in ROW.findall(table):
        found.setdefault(name, []).append((int(evaluations or 0), float(distance), float(error)))
    return found


def main(figures: Path) -> None:
    figure = empty_figure((7, 4))
    axes = figure.subplots()
    for name, points in rows(ROOT / "docs" / "sampling.md").items():
        evaluations, distances, errors = zip(*points, strict=True)
        if evaluations == (0,):
            low, high = distances[0] - errors[0], distances[0] + errors[0]
            axes.axhspan(low, high, color="0.85", label="training images")
        else:
            axes.errorbar(evaluations, distances, errors, marker="o", markersize=4, capsize=2, label=name)
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="distance to the test digits")
    axes.set_yticks([0.1, 0.15, 0.2, 0.3, 0.4], ["0.1", "0.15", "0.2", "0.3", "0.4"])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    plot.save(figure, figures / "sampler_choice.png")


if __name__ == "__main__":
    main(ROOT / "figs")
