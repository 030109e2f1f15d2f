"""A Kedro runner that runs nodes on the workers of a Dask cluster."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.io import DataCatalog
from kedro.runner import AbstractRunner, Task

from fsat_kedro.errors import InputError
from fsat_kedro.files import probe_file

if TYPE_CHECKING:  # An extra that few need; imported where it is used.
    from distributed import Client, Future
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node
    from pluggy import PluginManager

logger = logging.getLogger(__name__)
# For the lines of Kedro's own runners; the terminal shows them with `--verbose`.
kedro_logger = logging.getLogger("kedro.runner.dask")

_CONNECT_SECONDS = 10
_POLL_SECONDS = 10
_RESUME = "run the same command with --only-missing-outputs"


class DaskRunner(AbstractRunner):
    """Runs every node on a worker of a Dask cluster, as soon as its inputs exist.

    Nodes tagged `gpu` take one unit of the resource `GPU` if any worker offers it. Outputs go
    through the catalog to a folder that all workers share, or to an object store. A node whose
    worker dies runs again on another one. Neither the run's own process nor a worker keeps
    results, so no finished node runs again when a worker dies.

    Hooks of nodes and datasets are called in the workers. A project hook with a state for them has
    a method `for_worker(node, hosts)`: the run's own process calls it before the node starts, and
    sends its result with the node. `on_worker_error(error, catalog)` may turn an error into another
    one where it happened. Hooks of plugins stay in the run's own process.

    Example::

        kedro run --runner fsat_kedro.cluster.DaskRunner \
            --runner-params address=tcp://127.0.0.1:8786
    """

    def __init__(
        self, address: str | None = None, n_workers: int | None = None, is_async: bool = False
    ) -> None:
        """Create a runner, which connects when it runs.

        Args:
            address: the scheduler's address. The default is Dask's own setting,
                `DASK_SCHEDULER_ADDRESS`. Without that, the run starts a cluster on this machine.
            n_workers: number of workers of a cluster on this machine; by default one per core.
            is_async: whether the workers load and save datasets in threads.

        Raises:
            ClickException: Dask is not installed, or both address and n_workers are set.
        """
        super().__init__(is_async=is_async)
        try:
            import dask
            import distributed  # noqa: F401
        except ImportError as error:
            raise ClickException(
                "DaskRunner needs the package distributed: "
                'uv pip install --constraint requirements-dev.lock --editable ".[dask]"'
            ) from error
        self._address = address or dask.config.get("scheduler-address", None)
        if self._address and n_workers:
            raise ClickException(
                f"n_workers is for a cluster of this machine, but there is one at {self._address}"
            )
        self._n_workers = n_workers

    def _get_executor(self, max_workers: int) -> Executor | None:
        """Return None, because Kedro's own loop over nodes is not used."""

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        if not pipeline.nodes:
            return
        _require_persistent_outputs(pipeline, catalog)
        for name in ("distributed", "distributed.client"):
            # Dask logs every connection; the runner reports those that matter.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with ExitStack() as connections:
            address = self._address or connections.enter_context(_local_cluster(self._n_workers))
            client = _connect(address)
            connections.callback(client.close, timeout=_CONNECT_SECONDS)
            run = _ClusterRun(
                client, address, pipeline, catalog, hook_manager, run_id, self._is_async
            )
            try:
                run.run_nodes()
            except Exception:
                self._suggest_resume_scenario(pipeline, run.done, catalog)
                raise


@dataclass(eq=False)
class _ClusterRun:
    """The state of a run on a cluster: finished and submitted nodes."""

    client: Client
    address: str
    pipeline: Pipeline
    catalog: CatalogProtocol
    hook_manager: PluginManager | None
    run_id: str | None
    is_async: bool
    done: set[Node] = field(default_factory=set)
    futures: dict[Future, Node] = field(default_factory=dict)
    logged: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)

    def run_nodes(self) -> None:
        """Run all nodes, and cancel the others if one fails.

        A node is submitted when the nodes before it are done. If futures depended on futures, Dask
        would run a finished node again when the worker that keeps its result dies: a fold would
        train twice.
        """
        order = TopologicalSorter(self.pipeline.node_dependencies)
        order.prepare()
        try:
            self.hosts = self._prepare_cluster()
            while order.is_active():
                for node in order.get_ready():
                    self._submit(node)
                for node in self._wait():
                    order.done(node)
                    self._finish(node)
        except (CancelledError, OSError, TimeoutError) as error:
            if self.client.status == "running":
                raise
            raise InputError(
                f"the scheduler at {self.address} is gone. Finished outputs are complete, and "
                f"stages resume at their last epoch: start the cluster again, and {_RESUME}"
            ) from error
        finally:
            with suppress(Exception):
                self.client.cancel(list(self.futures), force=True)

    def _prepare_cluster(self) -> set[str]:
        """Check scheduler and workers, forward log lines, and return the machines' names."""
        from fsat_kedro.cluster import worker

        if not self.client.nthreads():
            self._log_once(f"Waiting for a worker at {self.address}")
            self.client.wait_for_workers(1)
        expected = worker.environment()
        data_dir = self.catalog.load(worker.DATA_DIR) if worker.DATA_DIR in self.catalog else None
        with probe_file(data_dir) as file:
            replies = self.client.run(worker.check_worker, expected, file, on_error="return")
        hosts = {reply for reply in replies.values() if isinstance(reply, str)}
        replies = {f"worker {address}": reply for address, reply in replies.items()}
        # The scheduler does not load Keras.
        packages = {name: value for name, value in expected.items() if name != "KERAS_BACKEND"}
        try:
            self.client.run_on_scheduler(worker.require_environment, packages)
        except (InputError, ImportError, AttributeError) as error:  # The last two: no such package.
            replies["the scheduler"] = error
        problems = [
            f"{name} {reply if isinstance(reply, InputError) else f'cannot take part: {reply!r}'}"
            for name, reply in replies.items()
            if isinstance(reply, Exception)
        ]
        if problems:
            raise InputError("; ".join(problems))
        for name in worker.FORWARDED_LOGGERS:  # At the levels that are set in this process.
            self.client.forward_logging(name, logging.getLogger(name).getEffectiveLevel())
        return hosts

    def _submit(self, node: Node) -> None:
        from distributed.protocol import pickle

        from fsat_kedro.cluster import worker

        names = {*node.inputs, *node.outputs, *node.confirms}
        names |= {worker.DATA_DIR, worker.SPOOL_DIR} & set(self.catalog)
        catalog = DataCatalog(datasets={name: self.catalog[name] for name in names})
        task = Task(node=node, catalog=catalog, is_async=self.is_async, run_id=self.run_id)
        future = self.client.submit(
            worker.run_node,
            worker.environment(),
            pickle.dumps((task, self._hooks_for(node))),
            key=f"{worker.KEY_PREFIX}:{node.name}-{uuid.uuid4().hex}",
            pure=False,
            resources=self._resources(node),
        )
        self.futures[future] = node

    def _hooks_for(self, node: Node) -> list[Any]:
        if self.hook_manager is None:
            return []
        # Kedro's stand-in for no manager returns None.
        plugins = [plugin for plugin, _ in self.hook_manager.list_plugin_distinfo() or []]
        return [
            hooks.for_worker(node, self.hosts) if hasattr(hooks, "for_worker") else hooks
            for _, hooks in self.hook_manager.list_name_plugin() or []
            if hooks is not None and hooks not in plugins
        ]

    def _resources(self, node: Node) -> dict[str, int] | None:
        if "gpu" not in node.tags:
            return None
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if any(worker["resources"].get("GPU") for worker in workers):
            return {"GPU": 1}
        self._log_once(
            "No worker offers the resource GPU: nodes that train and predict run on any worker"
        )
        return None

    def _wait(self) -> list[Node]:
        """Wait for some seconds, and return the nodes that have finished."""
        from distributed import wait

        try:
            finished = wait(list(self.futures), _POLL_SECONDS, return_when="FIRST_COMPLETED")
        except TimeoutError:
            if not self.client.nthreads():
                self._log_once(f"No worker is left at {self.address}: waiting for one")
            return []
        nodes = []
        for future in finished.done:
            node = self.futures.pop(future)
            error = future.exception()
            if error is not None:
                raise _readable(error, node)
            nodes.append(node)
        return nodes

    def _finish(self, node: Node) -> None:
        for name in node.outputs:
            # A worker wrote it: forget what datasets here remember of its file.
            self.catalog.release(name)
        self.done.add(node)
        kedro_logger.info("Completed node: %s", node.name)
        kedro_logger.info("Completed %d out of %d tasks", len(self.done), len(self.pipeline.nodes))

    def _log_once(self, line: str) -> None:
        if line not in self.logged:
            logger.info(line)
        self.logged.add(line)


def _require_persistent_outputs(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Require that other processes can load every output."""
    lost = [
        name
        for name in sorted(pipeline.all_outputs())
        if catalog[name]._EPHEMERAL or getattr(catalog[name], "_SINGLE_PROCESS", False)
    ]
    if lost:
        raise InputError(
            f"{', '.join(lost)} would be kept in the memory of one worker only, where no other "
            "finds it: add an entry to the catalog, or use another runner"
        )


def _readable(error: BaseException, node: Node) -> BaseException:
    from distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    readable = InputError(
        f"{node.name}: {error.allowed_failures + 1} workers died one after another while they ran "
        f"it, the last one at {error.last_worker.address}. The most frequent cause is too little "
        f"memory: see its log and that of its machine. Then {_RESUME}"
    )
    readable.__cause__ = copy.copy(error)
    return readable


def _connect(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=_CONNECT_SECONDS, name="fsat_kedro")
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address}: start one with `dask scheduler`, or leave "
            "the address out for a cluster of this machine"
        ) from error


@contextmanager
def _local_cluster(n_workers: int | None) -> Iterator[str]:
    """Run a scheduler and workers on this machine, a worker for each GPU among them."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    n_gpus = _count_gpus()
    n_workers = n_workers or max(len(os.sched_getaffinity(0)), n_gpus)
    workers = {}
    for index in range(n_workers):
        # No limit of memory: an equal part of it would be too little for a stage.
        options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "dashboard": False}
        if n_gpus:
            has_gpu = index < n_gpus
            options["env"] = {"CUDA_VISIBLE_DEVICES": str(index) if has_gpu else ""}
            options["resources"] = {"GPU": 1} if has_gpu else {}
        workers[index] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"port": 0, "host": "127.0.0.1", "dashboard": False}}
    quiet = {"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "error"}
    with dask.config.set(quiet), SpecCluster(workers, scheduler) as cluster:
        yield cluster.scheduler_address


def _count_gpus() -> int:
    """Return the number of NVIDIA GPUs in this machine."""
    if not (command := shutil.which("nvidia-smi")):
        return 0
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return listed.stdout.count("GPU ")
