"""The part of a run on a Dask worker: a node with its hooks, in an environment that is checked."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import random
import socket
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from dask.typing import Key
from distributed import Worker, WorkerPlugin, get_worker
from distributed.utils import sync
from distributed.versions import get_versions
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.runner import Task

from fsat_kedro.errors import InputError
from fsat_kedro.files import exists, is_url
from fsat_kedro.hooks.locks import hold

KEY_PREFIX = "fsat_kedro"
"""Of the Dask keys of nodes."""
DATA_DIR, SPOOL_DIR = "params:data_dir", "params:spool_dir"
FORWARDED_LOGGERS = ("fsat_kedro", "kedro.pipeline")
_PLUGIN = "fsat_kedro-nodes"
# Packages whose versions decide the outputs, beside those that Dask compares itself.
_PACKAGES = (
    *("kedro", "kedro-datasets", "keras", "librosa", "mlflow", "openvino"),
    *("scikit-learn", "scipy", "soundfile", "tensorflow"),
)


@cache
def environment() -> dict[str, str]:
    """Return what must be equal in all processes of a run, by name."""
    versions = get_versions(_PACKAGES)["packages"]
    return {
        **{name: version or "missing" for name, version in versions.items()},
        "python": ".".join(platform.python_version_tuple()[:2]),
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "the source of fsat_kedro": _source_digest(),
    }


def require_environment(expected: dict[str, str]) -> None:
    """Raise an InputError if `environment` returns something else in this process.

    Args:
        expected: what it returned in the run's own process, or a part of that.
    """
    ours = environment()
    differences = [
        f"{name} {ours.get(name)} instead of {value}"
        for name, value in expected.items()
        if ours.get(name) != value
    ]
    if differences:
        raise InputError(f"has {', '.join(differences)}")


async def check_worker(expected: dict[str, str], file: str | None, dask_worker: Worker) -> str:
    """Check that a worker can run nodes, prepare its process, and return its machine's name.

    Args:
        expected: see `require_environment`.
        file: path or url of a file below `data_dir`; None if there is no `data_dir`.
        dask_worker: the worker; Dask passes it.

    Raises:
        InputError: the worker cannot run nodes.
    """
    require_environment(expected)
    n_threads = dask_worker.state.nthreads
    if n_threads != 1:
        # Seeds and limits of threads belong to a process: two nodes in one would mix them.
        raise InputError(f"has {n_threads} threads: start it with --nthreads 1")
    if dask_worker.nanny is None:
        raise InputError("has no nanny that replaces a cancelled process: start it with --nanny")
    if file is not None and not exists(file):
        raise InputError(f"does not see {file}: share that folder, at the same path")
    await _prepare_process(dask_worker)
    return socket.gethostname()


def run_node(expected: dict[str, str], pickled: bytes) -> None:
    """Run a node on this worker.

    Args:
        expected: see `require_environment`. A worker may have joined after the others were checked.
        pickled: Kedro's `Task` without a hook manager, and a list of the run's hooks for it. The
            scheduler would unpickle anything but bytes.
    """
    worker = get_worker()
    try:
        require_environment(expected)
    except InputError as error:
        raise InputError(f"worker {worker.address} {error}") from None
    sync(worker.loop, _prepare_process, worker)
    task, all_hooks = pickle.loads(pickled)
    task.hook_manager = _create_hook_manager()
    _register_hooks(task.hook_manager, all_hooks)
    try:
        _execute(task)
    except Exception as error:
        # Here, because the full disk may be one of this machine.
        for hooks in all_hooks:
            if hasattr(hooks, "on_worker_error"):
                hooks.on_worker_error(error, task.catalog)
        raise


def _execute(task: Task) -> None:
    with ExitStack() as locks:
        if SPOOL_DIR in task.catalog:
            Path(task.catalog.load(SPOOL_DIR)).mkdir(parents=True, exist_ok=True)
        if DATA_DIR in task.catalog and not is_url(data_dir := task.catalog.load(DATA_DIR)):
            locks.enter_context(hold(task.node.outputs, Path(data_dir)))
        task.execute()


async def _prepare_process(worker: Worker) -> None:
    """Prepare the process of a worker for nodes, unless that is done.

    The scheduler could install the plugin, but would keep it after a run that is killed. Workers
    of other projects, which cannot import it, would then not start.
    """
    if _PLUGIN not in worker.plugins:
        await worker.plugin_add(NodePlugin(), name=_PLUGIN, catch_errors=False)


class NodePlugin(WorkerPlugin):
    """Prepares the process of a worker for nodes, and ends it with a cancelled node.

    Dask lets a cancelled task go on: a fold would train for hours, and then write its weights
    beside those of the next run. The nanny starts a new process. Outputs that were being written
    are marked as unfinished.
    """

    def setup(self, worker: Worker) -> None:
        """Have libraries, random numbers and log lines behave as nodes need it."""
        # It sets how libraries behave, before they are imported.
        import fsat_kedro.settings  # noqa: F401

        _separate_random_numbers()
        for name in FORWARDED_LOGGERS:  # `Client.forward_logging` shows them where the run began.
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).propagate = False
        for task in worker.state.tasks.values():  # Cancelled while this module was imported.
            self._end_if_cancelled(task.key, task.previous, task.state)

    def transition(self, key: Key, start: str, finish: str, **kwargs: Any) -> None:
        """End this process if the task is a node that was running and is cancelled."""
        self._end_if_cancelled(key, start, finish)

    def _end_if_cancelled(self, key: Key, start: str | None, finish: str) -> None:
        running = start in ("executing", "long-running")
        if running and finish in ("cancelled", "released") and str(key).startswith(KEY_PREFIX):
            os._exit(1)


def _separate_random_numbers() -> None:
    """Give Dask's threads a random number generator of their own.

    To estimate sizes and to retry connections they draw from Python's global generator. Between
    the lines in which Keras seeds it and draws from it, that would change the first weights.
    """
    generator = random.Random()
    for name, module in list(sys.modules.items()):
        from_dask = name.partition(".")[0] in ("dask", "distributed", "tornado")
        if from_dask and getattr(module, "random", None) is random:
            module.random = generator  # type: ignore[attr-defined]  # A module's own attribute.


def _source_digest() -> str:
    """Return a digest of all files of this package."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
