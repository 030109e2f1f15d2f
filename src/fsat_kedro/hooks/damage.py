"""Outputs that a disk keeps, and that are noticed when they are damaged later."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from fsat_kedro.datasets.filepath import filepath_of
from fsat_kedro.errors import InputError
from fsat_kedro.files import is_url, open_atomic, sync

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

SAVED = ".saved"
"""The folder in `data_dir` with the sizes and checksums of outputs."""

# In bytes. Reading larger files again would take longer than it is worth.
_MAX_CHECKSUMMED = 64 * 2**20


class DamageHooks:
    """Record the size and checksum of each saved output, and compare them when it is loaded.

    An object store checks what it receives and replaces objects whole: nothing is recorded there.
    """

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}
        self._records = Path()

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Remember the local files of the datasets."""
        data_dir: str = catalog.load("params:data_dir")
        # What is not in the catalog stays in memory.
        names = (
            [] if is_url(data_dir) else [name for name in pipeline.datasets() if name in catalog]
        )
        paths = {name: filepath_of(catalog[name]) for name in names}
        self._paths = {name: Path(path) for name, path in paths.items() if path is not None}
        self._records = Path(data_dir, SAVED)

    @hook_impl(tryfirst=True)  # Before OutputHooks clear the mark: then it counts as finished.
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Have the disk keep an output, and record its size and checksum."""
        path = self._paths.get(dataset_name)
        if path is not None and path.exists():
            sync(path)
            with open_atomic(self._record(dataset_name)) as file:
                file.write(json.dumps(_measure(path)).encode())

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str) -> None:
        """Compare a dataset with the record of the last time that a run saved it.

        Raises:
            InputError: it has changed.
        """
        path, record = self._paths.get(dataset_name), self._record(dataset_name)
        if path is None or not path.exists() or not record.exists():
            return
        if json.loads(record.read_text()) != _measure(path):
            raise InputError(
                f"{path} is not as it was saved: it is damaged or was changed. {remedy(path)}. "
                f"If you changed it on purpose, remove {record}"
            )

    def _record(self, dataset_name: str) -> Path:
        return self._records / f"{dataset_name}.json"


def remedy(path: str | Path) -> str:
    """Return how to replace a damaged output."""
    return (
        f"Remove {path}, then make it anew: `kedro run --only-missing-outputs` with the --env and "
        "--params of the run that made it"
    )


def _measure(path: Path) -> dict[str, list[int | None]]:
    """Return the size of each file of an output, and the checksum of those that are not large."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.name: [file.stat().st_size, _checksum(file)] for file in files}


def _checksum(file: Path) -> int | None:
    is_large = file.stat().st_size > _MAX_CHECKSUMMED
    return None if is_large else zlib.crc32(file.read_bytes())
