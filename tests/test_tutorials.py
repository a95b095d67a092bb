"""The programs of the tutorials run, in a short form and, slowly, as they are, and write the figures that they show."""

import os
import pathlib
import re
import sys

import pytest
from classes import forget_module

from docs.run_page import program

PAGES = sorted(page for page in (pathlib.Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))
PAGES = [page for page in PAGES if program(page.read_text())]
PACKAGES = {"nuts": ("numpyro",), "diffusers": ("torch", "diffusers"), "table": ("pandas",)}
# What makes a program short: examples that are evaluated, steps of posteriors, of training and of chains, numbers of a
# hundred, numbers of a thousand or more.
RULES = {
    r"\bn=\d+": "n=2",
    r"(?<=\bEulerMaruyama\()\d+": "2",
    r"\b((?:steps|num_warmup|num_samples)\W{1,3})\d[\d_]*": r"\g<1>4",
    r"(?<![\w.])\d{3}(?![\w.])": "20",
    r"(?<![\w.])\d{1,3}(?:_\d{3})+(?![\w.])": "200",
}

# NumPyro, optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def short(text):
    """A text whose programs train little and draw few."""
    for pattern, small in RULES.items():
        text = re.sub(pattern, small, text)
    return text


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a page in an empty folder."""

    def run(page, text):
        for package in PACKAGES.get(page.stem, ()):
            pytest.importorskip(package, reason=f"the page needs {package}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the scripts that it runs
        before, module = {*sys.modules}, f"page_tutorial_{page.stem}"
        try:
            exec(compile(program(text), str(page), "exec"), {"__name__": module})
        finally:
            own = [name for name in {*sys.modules} - before if (tmp_path / f"{name}.py").is_file()]
            for name in (module, *own):
                forget_module(name)
                sys.modules.pop(name, None)
        shown = re.findall(r"figs/(\w+\.png)", text)
        assert shown
        assert [name for name in shown if not (tmp_path / name).is_file()] == []

    return run


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_short_form_of_the_page_runs(page, run):
    run(page, short(page.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs(page, run):
    run(page, page.read_text())


@pytest.mark.quick
def test_a_short_form_is_short():
    text = "steps=2_000, num_warmup=150, x[:5_000], range(100), 0.125, 12, 'steps': 40, key_100"
    assert short(text) == "steps=4, num_warmup=4, x[:200], range(20), 0.125, 12, 'steps': 4, key_100"
