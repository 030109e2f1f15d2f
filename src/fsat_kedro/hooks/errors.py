"""Errors that a user can mend, as one message."""

from __future__ import annotations

import errno
import shutil
import socket
from traceback import walk_tb
from typing import TYPE_CHECKING

from click import ClickException
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, DatasetError

from fsat_kedro.datasets.filepath import filepath_of
from fsat_kedro.errors import InputError
from fsat_kedro.files import format_store_error, is_disk_error, is_url
from fsat_kedro.hooks.damage import remedy

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline.node import Node


class ReadableErrorHooks:
    """Show errors that a user can mend as one message; `kedro run --verbose` adds the traceback."""

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Turn an `InputError` of a node into a message of the command."""
        if isinstance(error, InputError):
            raise ClickException(f"{node.name}: {error}") from error

    @hook_impl(trylast=True)
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Turn an error of a dataset, the runner, a store or a full disk into a message."""
        self._make_readable(error, catalog, "")

    def on_worker_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Do the same on the worker that failed: only that machine knows its free space."""
        self._make_readable(error, catalog, f"on {socket.gethostname()}: ")

    def _make_readable(self, error: Exception, catalog: CatalogProtocol, where: str) -> None:
        if isinstance(error, ClickException):
            return
        data_dir: str = catalog.load("params:data_dir")
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError):
                raise ClickException(str(cause)) from cause
            if is_url(data_dir) and _is_of_store(cause):
                raise ClickException(where + format_store_error(data_dir, cause)) from cause
            if isinstance(cause, OSError) and _is_about_disk(cause):
                folder = catalog.load("params:spool_dir") if is_url(data_dir) else data_dir
                free = shutil.disk_usage(folder).free / 1e9
                raise ClickException(
                    f"{where}{cause}. {folder} has {free:.2f} GB free. Finished outputs are "
                    "complete: free some space or correct the folder's permissions, then continue "
                    "with --only-missing-outputs"
                ) from cause
            if _is_of_content(cause, data_dir) and (path := _path_of_dataset(cause)):
                raise ClickException(
                    f"{where}{path} is damaged, or of another version of the project: "
                    f"{cause.__cause__}. {remedy(path)}"
                ) from cause
            cause = cause.__cause__ or cause.__context__


def _is_of_content(error: BaseException, data_dir: str) -> bool:
    """Return whether Kedro could not load a dataset because of what is in its file."""
    cause = error.__cause__
    if not isinstance(error, DatasetError) or not str(error).startswith("Failed while loading"):
        return False
    if is_url(data_dir) and cause is not None and _is_of_store(cause):
        return False
    # An error of the system has a number; that of a broken HDF5 file has none.
    is_of_system = isinstance(cause, OSError) and cause.errno is not None
    return not is_of_system and not isinstance(cause, InputError | DatasetError | MemoryError)


def _path_of_dataset(error: BaseException) -> str | None:
    datasets = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    paths = [filepath_of(each) for each in datasets if isinstance(each, AbstractDataset)]
    return paths[-1] if paths else None


def _is_of_store(error: BaseException) -> bool:
    """Return whether fsspec raised the error while it read or wrote a url."""
    frames = walk_tb(error.__traceback__)
    modules = {frame.f_globals.get("__name__", "") for frame, _ in frames}
    if is_disk_error(error) or "fsspec.implementations.local" in modules:
        return False
    return any(name.startswith("fsspec.") for name in modules)


def _is_about_disk(error: OSError) -> bool:
    """Return whether writing failed for lack of space or of permission."""
    numbers = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
    # NumPy gives no number.
    return error.errno in numbers or (error.errno is None and "free space" in str(error))
