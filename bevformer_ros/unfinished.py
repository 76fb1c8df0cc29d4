"""Files and folders that bear their name only once they are whole, so that what broke off never looks complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"


def partial_path(path: Path) -> Path:
    """What a file or folder is called while it is being written."""
    return path.with_name(f"{path.name}{PARTIAL}")


def remove(path: Path) -> None:
    """A file, or a folder with all that it holds; nothing where there is neither."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write what is to be called `path`: it gets that name once the block has ended without an error.

    What an earlier try left is removed first. A file of that name is replaced, a folder must not be there. Raises
    OSError that names the place where the disk takes no more.
    """
    partial = partial_path(path)
    remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(partial)) from error
