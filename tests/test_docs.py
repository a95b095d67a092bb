import pathlib
import re
import tomllib

import pytest
from classes import forget_module

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_A_FILE = ("# after `python main.py`", "# with maps.npz")


def blocks(page):
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block for block in found if not any(words in block for words in NEEDS_A_FILE)]


# The classes of extending.md can be named once alone in a process, so that test_extending.py runs them.
EXECUTED = [page for page in PAGES if blocks(page) and page.name != "extending.md"]
SLOW = ("inference.md",)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.name in SLOW else []) for page in EXECUTED],
    ids=lambda page: page.name,
)
@pytest.mark.usefixtures("standard_promotion")  # The pages train by optax.
def test_examples_run(page):
    module = f"page_{page.stem}"  # A module of the tests may have the name of a page.
    try:
        exec(compile("\n".join(blocks(page)), str(page), "exec"), {"__name__": module})
    finally:
        forget_module(module)


def anchors(page):
    """The fragments that lead to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\(([^):]+)\)", page.read_text())
    missing = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        # A site is built of the folders docs and figs alone, so its pages must not lead out of them.
        inside = page.parent == ROOT or any(target.is_relative_to(ROOT / folder) for folder in ("docs", "figs"))
        if not (inside and target.exists() and (not anchor or anchor in anchors(target))):
            missing.append(link)
    assert not missing


def test_the_site_has_every_page():
    nav = re.findall(r"^  - (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(nav) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_every_dependency_is_listed_with_its_reason():
    section = (ROOT / "README.md").read_text().split("## Dependencies\n")[1].split("\n## ")[0]
    plain, bullets = section.split(" Besides these:")
    names = re.split(r",\s+|\sand\s", re.sub(r"\s+\([^)]*\)", "", plain).strip().rstrip("."))
    names += re.findall(r"^- (\S+?)[, ]", bullets, flags=re.MULTILINE)
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(names) == sorted(re.split(r"[^\w-]", name)[0] for name in required)
