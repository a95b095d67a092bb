"""Folders that are written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def written_whole(
    call: str, folder: Path, last: str, is_ours: Callable[[Path], bool], stale: Sequence[str] = ()
) -> Iterator[Path]:
    """Make a folder beside another one, to write in, and put it in that one's place at the end.

    Of a folder that is there, files of the same names are replaced, stale ones go, and all others stay. An error leaves
    it as it was.

    Arguments:
        call: Name of the call.
        folder: Folder that is written.
        last: Name of the file without which the folder cannot be read. It is there again when all others are.
        is_ours: Whether a folder holds what was written before, so that it may be written over.
        stale: Names, in which * stands for anything, of what such a folder may not keep from before.

    Raises:
        ValueError: for a folder that holds something else.
    """
    folder = folder.absolute()
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_new and not (folder.is_dir() and is_ours(folder)):
        raise ValueError(f"{call}: {folder} holds something else already; pass a new folder, or an empty one.")
    part = folder.parent / f".{folder.name}.{os.getpid()}.part"
    part.mkdir(parents=True)
    try:
        yield part
        if is_new:
            if folder.exists():
                folder.rmdir()
            os.replace(part, folder)
            return
        (folder / last).unlink(missing_ok=True)
        for old in [path for pattern in stale for path in folder.glob(pattern)]:
            _remove(old)
        for path in sorted(part.iterdir(), key=lambda path: path.name == last):
            if path.is_dir():
                _remove(folder / path.name)
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
