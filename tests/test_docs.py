import importlib
import pathlib
import re
import tomllib

import numpy as np
import pytest
from classes import forget_module
from public import exports, find, names_in, public_packages

from docs.run_page import blocks

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_ROOT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [*OF_ROOT, *sorted(DOCS.rglob("*.md"))]
NEEDS_A_FILE = ("# after `python main.py`", "# with maps.npz")


def programs(page):
    found = [code for _, code in blocks(page.read_text())]
    return [code for code in found if not any(words in code for words in NEEDS_A_FILE)]


# The classes of extending.md can be named once alone in a process, so that test_extending.py runs them; tutorials are
# run by test_tutorials.py.
ELSEWHERE = {DOCS / "extending.md", *(DOCS / "tutorials").glob("*.md")}
EXECUTED = [page for page in PAGES if programs(page) and page not in ELSEWHERE]
LONG = "chains", "discrete", "evaluation", "how_do_i", "inference", "interop", "likelihood", "networks", "posteriors"
LONG += "sampling", "training"
LONG += tuple(f"concepts/{name}" for name in ("chains", "guidance", "likelihood", "path", "predictions"))
SLOW = [DOCS / f"{name}.md" for name in LONG]


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in EXECUTED],
    ids=name_of,
)
@pytest.mark.usefixtures("standard_promotion")  # The pages train by optax.
def test_examples_run(page):
    module = f"page_{page.parent.name}_{page.stem}"  # A module of the tests may have the name of a page.
    try:
        exec(compile("\n".join(programs(page)), str(page), "exec"), {"__name__": module})
    finally:
        forget_module(module)


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_programs_exist(page):
    """Of every page, those whose programs run slowly among them."""
    for _, code in blocks(page.read_text()):
        for name in names_in(code):
            assert find(name) is not None, name


TWELVE_LINES = [
    re.findall(r"^```python\n(# with maps.npz\n.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for page in (ROOT / "README.md", DOCS / "index.md", DOCS / "start.md")
]


@pytest.mark.quick
def test_the_first_pages_have_the_same_twelve_lines():
    assert TWELVE_LINES[0] == TWELVE_LINES[1] == TWELVE_LINES[2]
    assert len(TWELVE_LINES[0][0].splitlines()) == 12


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_the_twelve_lines_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "maps.npz", x=rng.normal(3, 0.4, (200, 8, 8, 1)), theta=rng.uniform(0.1, 0.5, (200, 2)))
    monkeypatch.chdir(tmp_path)
    page = {}
    exec(TWELVE_LINES[0][0].replace("2_000", "2").replace("64", "2"), page)  # A small form of the same.
    assert page["x"].shape == (2, 8, 8, 1)
    assert abs(page["x"].mean() - 3) < 0.4
    assert np.isfinite(page["result"].value).all()


def anchors(page):
    """The fragments that lead to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^):]+)\)", text)
    missing = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        # A site is built of the folders docs and figs alone, so its pages must not lead out of them.
        inside = page.parent == ROOT or any(target.is_relative_to(ROOT / folder) for folder in ("docs", "figs"))
        if not (inside and target.exists() and (not anchor or anchor in anchors(target))):
            missing.append(link)
    assert not missing


@pytest.mark.quick
def test_figures_are_small_and_shown():
    """At most 300 kB, and on a page."""
    shown = "".join(page.read_text() for page in PAGES)
    files = sorted((ROOT / "figs").iterdir())
    assert [path.name for path in files if path.stat().st_size > 300_000] == []
    assert [path.name for path in files if f"/{path.name}" not in shown] == []


@pytest.mark.quick
def test_the_site_has_every_page():
    nav = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    of_root = ["changelog.md", "contributing.md"]  # docs/site_figures.py brings them.
    assert sorted(nav) == sorted([str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")] + of_root)


API = {page: page.read_text() for page in sorted((DOCS / "api").glob("*.md"))}
DIRECTIVES = [path for text in API.values() for path in re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)]


def documented(path):
    module, _, name = path.rpartition(".")
    package = importlib.import_module(module)
    return exports(package).get(name, getattr(package, name))


@pytest.mark.quick
def test_every_public_name_is_on_an_api_page_once():
    assert len(set(DIRECTIVES)) == len(DIRECTIVES)
    parts = [documented(path) for path in DIRECTIVES]
    missing = {
        f"{package.__name__}.{name}"
        for package in public_packages()
        for name, part in exports(package).items()
        if not any(part is known for known in parts)
    }
    assert not missing, "write `::: NAME` in a page of docs/api"
    assert len({id(part) for part in parts}) == len(parts)


@pytest.mark.quick
@pytest.mark.parametrize("package", public_packages(), ids=lambda package: package.__name__)
def test_the_page_of_a_package_has_all_that_it_exports(package):
    """As a directive, or as a link to the page where it is."""
    home = package.__name__.removeprefix("sgm").lstrip(".").partition(".")[0] or "sgm"
    text = API[DOCS / "api" / f"{home}.md"]
    names = [f"{package.__name__}.{name}" for name in exports(package)]
    assert not [name for name in names if not re.search(rf"^::: {name}(\.\w+)?$|\[`{name}`\]", text, re.MULTILINE)]


@pytest.mark.parametrize("page", API, ids=name_of)
@pytest.mark.quick
def test_cross_references_of_the_api_lead_to_a_directive(page):
    assert not set(re.findall(r"\]\[(sgm[\w.]*)\]", API[page])) - set(DIRECTIVES)


@pytest.mark.quick
def test_every_benchmark_is_described():
    text = (DOCS / "benchmarks.md").read_text()
    scripts = sorted(path.name for path in (ROOT / "tests" / "benchmarks").glob("*.py"))
    assert [script for script in scripts if f"`{script}`" not in text] == []


@pytest.mark.quick
def test_the_citation_has_the_version():
    words = (ROOT / "CITATION.cff").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in words
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_listed_with_its_reason():
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Dependencies\n")[1].split("\n## ")[0]
    plain, bullets = section.split(" Besides these:")
    names = re.split(r",\s+|\sand\s", re.sub(r"\s+\([^)]*\)", "", plain).strip().rstrip("."))
    names += re.findall(r"^- (\S+?)[, ]", bullets, flags=re.MULTILINE)
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(names) == sorted(re.split(r"[^\w-]", name)[0] for name in required)
