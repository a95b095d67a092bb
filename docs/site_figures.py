"""A hook of mkdocs: the site has the pictures of the folder figs, and two pages of the root, beside those of docs."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")


def on_files(files, config):
    for path in sorted((ROOT / "figs").iterdir()):
        files.append(File.generated(config, f"figs/{path.name}", abs_src_path=str(path)))
    for name in PAGES:
        words = (ROOT / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name.lower(), content=words))
    return files


def on_page_markdown(markdown, page, **_):
    # Beside docs in the repository, the pictures are inside the site: one folder nearer.
    return re.sub(r"\]\(\.\./((?:\.\./)*figs/)", r"](\1", markdown)
