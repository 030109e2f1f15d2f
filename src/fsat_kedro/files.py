"""Writing a file or a folder so that it is either whole or as it was before.

What is written goes beside it and is renamed at the end, so that a killed run, a full disk or an
object that cannot be written leaves nothing that passes for whole.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to, which takes its place at the end.

    If writing fails, what was written is removed, and what was at `path` stays.
    """
    partial = path.with_name(f".partial.{path.name}")
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if path.is_dir():
            # A folder cannot be replaced in one go. Moved aside it is gone at once, not file by
            # file, so that what is left of it never passes for whole.
            aside = path.with_name(f".replaced.{path.name}")
            remove(aside)
            path.rename(aside)
            partial.replace(path)
            remove(aside)
        else:
            partial.replace(path)
    finally:
        remove(partial)  # Which is there no more if all went well.


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
