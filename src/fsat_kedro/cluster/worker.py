"""What a Dask worker does of a run: one node with the hooks around it, and telling how it goes."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import pickle
import platform
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from distributed import Worker, get_worker
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.io import DataCatalog
from kedro.pipeline.node import Node
from kedro.runner import Task

from fsat_kedro.errors import InputError
from fsat_kedro.files import exists
from fsat_kedro.hooks.locks import hold
from fsat_kedro.parallel import spread_over_cluster

_POLL_SECONDS = 0.5
_DECISIVE = (  # Packages whose version decides what comes out, or whether it comes out at all.
    *("distributed", "kedro", "kedro-datasets", "keras", "librosa", "mlflow", "numpy", "pandas"),
    *("openvino", "scikit-learn", "scipy", "soundfile", "tensorflow"),
)


@dataclass(frozen=True)
class Order:
    """A node, and all that a worker needs to run it as the run's own process would.

    Attributes:
        node: what to run.
        catalog: of the node's datasets.
        hooks: as `DaskRunner` has them for this node.
        run_id: Kedro's.
        is_async: whether datasets are loaded and saved by threads.
        environment: of the run's own process, which the worker's has to equal.
        topic: that log lines and progress are told under.
        spool_dir: a local folder for locks and temporary files; None if nobody knows.
    """

    node: Node
    catalog: DataCatalog
    hooks: list[Any]
    run_id: str | None
    is_async: bool
    environment: dict[str, str]
    topic: str
    spool_dir: str | None


@dataclass(frozen=True)
class WorkerState:
    """What the run's own process wants to know of a worker before it sends nodes there."""

    environment: dict[str, str]
    host: str
    n_threads: int
    sees_file: bool


@cache
def environment() -> dict[str, str]:
    """What must be the same wherever nodes of a run are run, by name."""
    versions = {name: _version(name) for name in _DECISIVE}
    return {
        "the source of fsat_kedro": _source_digest(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow"),
        **versions,
    }


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """What differs between two environments, in words."""
    return [
        f"{name} {theirs.get(name)} instead of {value}"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]


def describe_worker(file: str | None, dask_worker: Worker) -> WorkerState:
    """The state of the worker that this runs on; `file` is one that it should see.

    Raises:
        InputError: the file is in a store that this machine cannot use.
    """
    sees_file = file is None or exists(file)
    n_threads = dask_worker.state.nthreads
    return WorkerState(environment(), socket.gethostname(), n_threads, sees_file)


def run_node(pickled: bytes) -> None:
    """Run a node on this worker.

    Args:
        pickled: an `Order`. As bytes it travels through the scheduler without being looked at.

    Raises:
        InputError: this worker's environment is another than that of the run.
    """
    # Sets how the libraries behave, before they are imported.
    import fsat_kedro.settings  # noqa: F401

    _keep_random_numbers_to_nodes()
    order: Order = pickle.loads(pickled)
    different = differences(order.environment, environment())
    if different:
        raise InputError(f"worker {get_worker().address} has {', '.join(different)}")
    # What hooks set for a node, such as where its epochs are reported, ends with it.
    copy_context().run(_run, order)


def _run(order: Order) -> None:
    hook_manager = _create_hook_manager()
    _register_hooks(hook_manager, order.hooks)
    tell = _teller(order.topic)
    with ExitStack() as around:
        around.enter_context(_ending_with_the_run())
        around.enter_context(_telling_logs(tell))
        around.enter_context(spread_over_cluster(tell))
        if order.spool_dir is not None:
            Path(order.spool_dir).mkdir(parents=True, exist_ok=True)
            around.enter_context(hold(order.node.outputs, Path(order.spool_dir)))
        try:
            Task(
                node=order.node,
                catalog=order.catalog,
                hook_manager=hook_manager,
                is_async=order.is_async,
                run_id=order.run_id,
            ).execute()
        except Exception as error:
            # Told here, where the disk is that may be full.
            for hooks in order.hooks:
                if hasattr(hooks, "on_worker_error"):
                    hooks.on_worker_error(error, order.catalog)
            raise


def _keep_random_numbers_to_nodes() -> None:
    """Give Dask's own threads a generator of their own.

    To estimate sizes and to choose among workers they draw from Python's, between Keras' seeding
    it and drawing from it: networks would begin with other weights every time.
    """
    own = random.Random()
    for name, module in list(sys.modules.items()):
        of_dask = name.partition(".")[0] in ("dask", "distributed", "tornado")
        if of_dask and getattr(module, "random", None) is random:
            module.random = own


class _NotWantedError(BaseException):
    """Nobody waits for the node any more."""


@contextmanager
def _ending_with_the_run() -> Iterator[None]:
    """Stop what this thread does when the run has ended or has given the node up.

    Dask itself lets a task go on whose result nobody wants: a fold would train for hours more,
    and then write its weights beside those of the next run.
    """
    worker = get_worker()
    key = worker.get_current_task()
    thread = threading.get_ident()
    over = threading.Event()
    changing = threading.Lock()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            task = worker.state.tasks.get(key)
            if task is not None and task.state not in ("cancelled", "released"):
                continue
            with changing:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(_NotWantedError)
                    )
            return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with changing:
            over.set()


def _teller(topic: str) -> Callable[[Any], None]:
    worker = get_worker()

    def tell(message: Any) -> None:
        worker.log_event(topic, message)

    return tell


@contextmanager
def _telling_logs(tell: Callable[[Any], None]) -> Iterator[None]:
    """Have the log lines of this thread shown where the run was started, and only there."""
    handler = _Handler(tell)
    loggers = [logging.getLogger(name) for name in ("fsat_kedro", "kedro.pipeline")]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self._tell = tell
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            attributes = ("name", "levelno", "levelname", "created", "msecs")
            told = {name: getattr(record, name) for name in attributes}
            self._tell({"log": {**told, "msg": record.getMessage()}})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _source_digest() -> str:
    """Of all files of this package."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        if path.suffix == ".pyc":
            continue
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
