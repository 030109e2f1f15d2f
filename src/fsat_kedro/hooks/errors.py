"""Errors as one message."""

from __future__ import annotations

import errno
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from click import ClickException
from kedro.framework.hooks import hook_impl

from fsat_kedro.errors import InputError

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline.node import Node


class ReadableErrorHooks:
    """Shows what a user can mend as one message; `kedro run --verbose` adds the traceback."""

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Turn an `InputError` of a node into a message of the command."""
        if isinstance(error, InputError):
            raise ClickException(f"{node.name}: {error}") from error

    @hook_impl(trylast=True)
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Turn what a dataset or the runner says, or a disk that is full, into a message."""
        self._make_readable(error, catalog, "")

    def on_worker_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Do the same on another machine, where the disk can be looked at."""
        self._make_readable(error, catalog, f"on {socket.gethostname()}: ")

    def _make_readable(self, error: Exception, catalog: CatalogProtocol, where: str) -> None:
        if isinstance(error, ClickException):
            return
        data_dir = Path(catalog.load("params:data_dir"))
        while error is not None:
            if isinstance(error, InputError):
                raise ClickException(str(error)) from error
            if isinstance(error, OSError) and _about_disk(error):
                free = shutil.disk_usage(data_dir).free / 1e9
                raise ClickException(
                    f"{where}{error}. {data_dir} has {free:.2f} GB free. What was finished is "
                    "whole: make room or mend the folder's rights, then go on with "
                    "--only-missing-outputs"
                ) from error
            error = error.__cause__ or error.__context__


def _about_disk(error: OSError) -> bool:
    """Whether writing failed for want of room or of rights."""
    wants = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
    # NumPy names no number.
    return error.errno in wants or (error.errno is None and "free space" in str(error))
