"""Execute the Python blocks of a page as one program, in an empty folder, and keep its figures.

    python docs/run_page.py docs/tutorials/maps.md --folder figs

A block with a title, such as ```python title="parts.py", is written to a file of that name in its place.
"""

import argparse
import contextlib
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path


def blocks(text: str) -> list[tuple[str, str]]:
    """The Python blocks of a page's text, in order: the title of each, or "", and its code."""
    return re.findall(r'^```python(?: title="(\S+)")?\n(.*?)^```', text, flags=re.DOTALL | re.MULTILINE)


def program(text: str) -> str:
    """The Python blocks of a page's text as one program."""
    written = "import pathlib\n\npathlib.Path({!r}).write_text({!r})\n"
    return "\n".join(written.format(title, code) if title else code for title, code in blocks(text))


def main(page: Path, folder: Path) -> None:
    """Run a page, copy the figures that it writes to a folder, and print their sizes and its time."""
    with tempfile.TemporaryDirectory() as empty:
        with contextlib.chdir(empty):
            exec(compile(program(page.read_text()), str(page), "exec"), {"__name__": page.stem})
        folder.mkdir(parents=True, exist_ok=True)
        for figure in sorted(Path(empty).glob("*.png")):
            shutil.copy(figure, folder)
            print(f"{folder / figure.name}: {figure.stat().st_size / 1000:.0f} kB")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{page.name}: {sum(part.ru_utime + part.ru_stime for part in used):.0f} s of one core")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Execute the Python blocks of a page.")
    parser.add_argument("page", type=Path, help="page, a Markdown file")
    parser.add_argument("--folder", type=Path, default=Path("figs"), help="folder of the figures")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    main(arguments.page.resolve(), arguments.folder.resolve())
