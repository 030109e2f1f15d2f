"""A Kedro runner that runs nodes on the workers of a Dask cluster."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.io import DataCatalog
from kedro.runner import AbstractRunner

from fsat_kedro.errors import InputError
from fsat_kedro.files import probe_file
from fsat_kedro.parallel import Bars

if TYPE_CHECKING:  # An extra that few need; imported where it is used.
    from distributed import Client, Future
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node
    from pluggy import PluginManager

logger = logging.getLogger(__name__)
# For what Kedro's own runners tell; the terminal shows it when asked to be verbose.
kedro_logger = logging.getLogger("kedro.runner.dask")

_CONNECT_SECONDS = 10
_LOOK_SECONDS = 10
_AGAIN = "run the same command with --only-missing-outputs"


class DaskRunner(AbstractRunner):
    """Runs every node on a worker of a Dask cluster, as soon as what it needs is there.

    Nodes tagged `gpu` ask for one unit of the resource `GPU` where any worker offers it. Outputs
    go through the catalog to a folder that all workers share, or to an object store. A node whose
    worker dies is run again on another one. Hooks of nodes and datasets are called in the workers;
    hooks of the project that keep a state for them have a method `for_worker(node, hosts)`, called
    in the run's own process before the node starts, which gives what is sent with the node; one
    `on_worker_error(error, catalog)` may turn an error into another where it happened. Hooks of
    plugins stay in the run's own process.

    The run's own process waits for nodes and keeps no result, so that a worker that dies takes
    nothing with it that would have to be made again.

    Example:
        On the command line::

            kedro run --runner fsat_kedro.cluster.DaskRunner \
                --runner-params address=tcp://127.0.0.1:8786
    """

    def __init__(
        self, address: str | None = None, n_workers: int | None = None, is_async: bool = False
    ) -> None:
        """A runner; nothing is connected to before it runs.

        Args:
            address: of the scheduler. By default Dask's own setting, `DASK_SCHEDULER_ADDRESS`;
                and without it, a cluster of this machine is started for the run.
            n_workers: of a cluster of this machine; by default one per core.
            is_async: whether the workers load and save datasets by threads.

        Raises:
            ClickException: Dask is not installed, or both address and n_workers are given.
        """
        super().__init__(is_async=is_async)
        try:
            import dask
            import distributed  # noqa: F401
        except ImportError as error:
            raise ClickException(
                "DaskRunner needs the package distributed: pip install distributed"
            ) from error
        self._address = address or dask.config.get("scheduler-address", None)
        if self._address and n_workers:
            raise ClickException(
                f"n_workers is for a cluster of this machine, but there is one at {self._address}"
            )
        self._n_workers = n_workers

    def _get_executor(self, max_workers: int) -> Executor | None:
        """None: Kedro's own loop over nodes is not used."""

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        if not pipeline.nodes:
            return
        _refuse_memory_only(pipeline, catalog)
        _quieten_dask()
        with ExitStack() as around:
            address = self._address or around.enter_context(_local_cluster(self._n_workers))
            client = around.enter_context(_connected(address))
            run = _Run(client, pipeline, catalog, hook_manager, run_id, self._is_async)
            try:
                for node in run.nodes_as_they_finish():
                    kedro_logger.info("Completed node: %s", node.name)
                    kedro_logger.info(
                        "Completed %d out of %d tasks", len(run.done), len(pipeline.nodes)
                    )
            except Exception:
                self._suggest_resume_scenario(pipeline, run.done, catalog)
                raise


class _Run:
    """One run on a cluster: what is done, and what is under way."""

    def __init__(
        self,
        client: Client,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None,
        run_id: str | None,
        is_async: bool,
    ) -> None:
        self.done: set[Node] = set()
        self._client = client
        self._address = client.scheduler.address
        self._pipeline = pipeline
        self._catalog = catalog
        self._hook_manager = hook_manager
        self._run_id = run_id
        self._is_async = is_async
        self._id = uuid.uuid4().hex[:8]
        self._futures: dict[Future, Node] = {}
        self._told: set[str] = set()

    def nodes_as_they_finish(self) -> Iterator[Node]:
        """Run all nodes; gives each when it is done.

        Raises:
            InputError: the cluster is gone, or not fit for the run.
            Exception: that of the first node that failed; no other is then waited for.
        """
        dependencies = self._pipeline.node_dependencies
        load_counts = Counter(chain.from_iterable(node.inputs for node in self._pipeline.nodes))
        todo = list(self._pipeline.nodes)
        try:
            with self._shown():
                self._hosts = self._check_workers()
                while todo or self._futures:
                    for node in [node for node in todo if dependencies[node] <= self.done]:
                        todo.remove(node)
                        self._submit(node)
                    for node in self._wait():
                        self.done.add(node)
                        AbstractRunner._release_datasets(
                            node, self._catalog, load_counts, self._pipeline
                        )
                        yield node
        except (CancelledError, OSError, TimeoutError) as error:
            if self._client.status == "running":
                raise
            raise InputError(
                f"the scheduler at {self._address} is gone. What was finished is whole, and "
                f"stages go on at their last epoch: start the cluster again, and {_AGAIN}"
            ) from error
        finally:
            with suppress(Exception):
                self._client.cancel(list(self._futures), force=True)

    def _submit(self, node: Node) -> None:
        from distributed.protocol import pickle

        from fsat_kedro.cluster.worker import Order, environment, run_node

        names = {*node.inputs, *node.outputs, *node.confirms}
        # Hooks ask for it too.
        names |= {"params:data_dir", "params:spool_dir"} & set(self._catalog)
        order = Order(
            node=node,
            catalog=DataCatalog(datasets={name: self._catalog[name] for name in names}),
            hooks=self._hooks_for(node),
            run_id=self._run_id,
            is_async=self._is_async,
            environment=environment(),
            topic=self._id,
            spool_dir=_load(self._catalog, "params:spool_dir"),
        )
        future = self._client.submit(
            run_node,
            pickle.dumps(order),
            key=f"{node.name}-{self._id}",
            pure=False,
            resources=self._resources(node),
        )
        self._futures[future] = node

    def _hooks_for(self, node: Node) -> list[Any]:
        if not hasattr(self._hook_manager, "list_name_plugin"):
            return []
        of_plugins = [plugin for plugin, _ in self._hook_manager.list_plugin_distinfo() or []]
        return [
            hooks.for_worker(node, self._hosts) if hasattr(hooks, "for_worker") else hooks
            for _, hooks in self._hook_manager.list_name_plugin() or []
            if hooks is not None and hooks not in of_plugins
        ]

    def _resources(self, node: Node) -> dict[str, int] | None:
        if "gpu" not in node.tags:
            return None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        if any(worker["resources"].get("GPU") for worker in workers):
            return {"GPU": 1}
        self._tell_once(
            "No worker offers the resource GPU: nodes that train and predict run on any worker"
        )
        return None

    def _wait(self) -> list[Node]:
        """Nodes that have finished, once there are any."""
        from distributed import wait

        try:
            finished = wait(
                list(self._futures), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED"
            )
        except TimeoutError:
            if not self._client.nthreads():
                self._tell_once(f"No worker is left at {self._address}: waiting for one")
            return []
        nodes = []
        for future in finished.done:
            node = self._futures.pop(future)
            error = future.exception()
            if error is not None:
                raise _readable(error, node)
            nodes.append(node)
        return nodes

    def _check_workers(self) -> set[str]:
        """Wait for a worker; see that all of them can do what is asked of them.

        Returns:
            The names of their machines.
        """
        from fsat_kedro.cluster.worker import describe_worker, differences, environment

        if not self._client.nthreads():
            self._tell_once(f"Waiting for a worker at {self._address}")
            self._client.wait_for_workers(1)
        with probe_file(_load(self._catalog, "params:data_dir")) as file:
            states = self._client.run(describe_worker, file, on_error="return")
        wrong = {}
        for address, state in states.items():
            if isinstance(state, Exception):
                wrong[address] = f"cannot take part: {type(state).__name__}: {state}"
                continue
            different = differences(environment(), state.environment)
            if different:
                wrong[address] = "has " + ", ".join(different)
            elif state.n_threads != 1:
                # Seeds and limits of threads are of a process: two nodes in one would mix them.
                wrong[address] = f"has {state.n_threads} threads: start it with --nthreads 1"
            elif not state.sees_file:
                wrong[address] = f"does not see {file}: share that folder, at the same path"
        if wrong:
            raise InputError(
                "; ".join(f"worker {address} {problem}" for address, problem in wrong.items())
            )
        return {state.host for state in states.values()}

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Show log lines and progress of the workers here."""
        bars = Bars()

        def show(event: tuple[float, dict]) -> None:
            _, told = event
            if "log" in told:
                record = logging.makeLogRecord(told["log"])
                shown_by = logging.getLogger(record.name)
                if shown_by.isEnabledFor(record.levelno):
                    shown_by.handle(record)
            else:
                bars.show(**told)

        self._client.subscribe_topic(self._id, show)
        try:
            yield
        finally:
            bars.close()
            with suppress(Exception):
                self._client.unsubscribe_topic(self._id)

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            logger.info(line)
        self._told.add(line)


def _refuse_memory_only(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Workers have no memory in common.

    Raises:
        InputError: an output would be in memory only.
    """
    lost = [
        name
        for name in sorted(pipeline.all_outputs())
        if catalog[name]._EPHEMERAL or getattr(catalog[name], "_SINGLE_PROCESS", False)
    ]
    if lost:
        raise InputError(
            f"{', '.join(lost)} would be kept in the memory of one worker only, where no other "
            "sees it: give it an entry in the catalog, or use another runner"
        )


def _quieten_dask() -> None:
    """Dask logs every connection; what matters of it is told by the runner."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _load(catalog: CatalogProtocol, name: str) -> str | None:
    return catalog.load(name) if name in catalog else None


def _readable(error: BaseException, node: Node) -> BaseException:
    from distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    readable = InputError(
        f"{node.name}: {error.allowed_failures + 1} workers ended one after another while they ran "
        f"it, the last one at {error.last_worker.address}. Most often a worker is ended for want "
        f"of memory: its log and that of its machine tell. Then {_AGAIN}"
    )
    readable.__cause__ = copy.copy(error)
    return readable


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_SECONDS, name="fsat_kedro")
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address}: start one with `dask scheduler`, or leave "
            "the address out for a cluster of this machine"
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=_CONNECT_SECONDS)


@contextmanager
def _local_cluster(n_workers: int | None) -> Iterator[str]:
    """A scheduler and workers of this machine, as many of them with a GPU as there are."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    n_gpus = _count_gpus()
    n_workers = n_workers or max(len(os.sched_getaffinity(0)), n_gpus)
    # No limit of memory: a part of it each would be too little for a stage, and rest unused.
    options = {"nthreads": 1, "memory_limit": 0, "dashboard": False}
    workers = {}
    for index in range(n_workers):
        gpu = {}
        if n_gpus:
            mine = index < n_gpus
            gpu["env"] = {"CUDA_VISIBLE_DEVICES": str(index) if mine else ""}
            gpu["resources"] = {"GPU": 1} if mine else {}
        workers[index] = {"cls": Nanny, "options": {**options, **gpu}}
    scheduler = {"cls": Scheduler, "options": {"port": 0, "host": "127.0.0.1", "dashboard": False}}
    quiet = {"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "error"}
    with dask.config.set(quiet), SpecCluster(workers, scheduler) as cluster:
        yield cluster.scheduler_address


def _count_gpus() -> int:
    """GPUs of NVIDIA in this machine."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return 0
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return listed.stdout.count("GPU ")
