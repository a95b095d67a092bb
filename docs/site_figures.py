"""A hook of mkdocs: the pages show the pictures of the folder figs, beside docs; the site has them under figs/."""

from pathlib import Path

from mkdocs.structure.files import File

FIGURES = Path(__file__).parents[1] / "figs"


def on_files(files, config):
    for path in sorted(FIGURES.glob("*.png")):
        files.append(File.generated(config, f"figs/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, **_):
    return markdown.replace("](../figs/", "](figs/")
