"""What the terminal shows of a run: a line for each node, then clips, scores and paths."""

from __future__ import annotations

import copy
import logging
import os
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from kedro.framework.cli.utils import KedroCliError
from kedro.framework.hooks import hook_impl

from fsat_kedro.data.raw_files import printable
from fsat_kedro.datasets.filepath import filepath_of

if TYPE_CHECKING:
    import pandas as pd
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)

_MAIN_OUTPUTS = ("report", "submission", "tags", "scores", "rejected_clips", "clip_warnings")
"""Outputs whose paths are logged at the end, in this order."""


class ProgressHooks:
    """Log which node runs, and at the end the clips, the scores and the paths of outputs.

    `--verbose` adds Kedro's own lines, with all inputs and outputs of each node, and the warnings
    of libraries.
    """

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Count the nodes."""
        self._n_nodes, self._n_started = len(pipeline.nodes), 0
        if KedroCliError.VERBOSE_ERROR:
            logging.getLogger("kedro").setLevel(logging.INFO)
            for name in ("kedro_viz", "tensorflow"):
                logging.getLogger(name).setLevel(logging.WARNING)

    @hook_impl(tryfirst=True)  # Before a hook that imports Keras.
    def before_node_run(self, node: Node) -> None:
        """Log the node that starts."""
        if "gpu" in node.tags and not KedroCliError.VERBOSE_ERROR:
            import_keras_quietly()
        self._n_started += 1
        logger.info("%d/%d %s", self._n_started, self._n_nodes, node.name)

    def for_worker(self, node: Node, hosts: set[str]) -> ProgressHooks:
        """Return hooks that log the same line from another process."""
        hooks = copy.copy(self)
        self._n_started += 1
        return hooks

    @hook_impl(trylast=True)
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Log how many clips were used, how well they are tagged, and the paths of outputs."""
        if any(name.endswith("_clips") for name in pipeline.datasets()):
            _log_clip_counts(catalog)
        outputs = pipeline.all_outputs()
        if "scores" in outputs:
            scores = format_scores(catalog.load("scores"))
            logger.info("Scores, with 95 %% intervals:\n%s", scores)
        _log_paths(outputs, catalog)
        if "scores" in outputs:
            env = f"--env {run_params['env']} " if run_params.get("env") else ""
            data_dir = _relative(catalog.load("params:data_dir"))
            logger.info("Next: kedro viz run %s--include-hooks", env)
            logger.info("Next: mlflow ui")
            logger.info("Next: kedro tag --data-dir %s FILE", data_dir)
            logger.info("Next: kedro app --data-dir %s", data_dir)


def import_keras_quietly() -> None:
    """Import Keras without the messages of TensorFlow's C++ side, unless the import fails.

    TensorFlow writes them before it applies its log level, and past Python's `sys.stderr`: only
    another file descriptor in place of the standard error catches them.
    """
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            messages.seek(0)
            os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def format_clip_counts(counts: dict[str, int], reasons: pd.Series) -> str:
    """Return a line about the clips of a split.

    Args:
        counts: of clips: listed, rejected, with_warnings, unlisted; of corrected labels, if there
            are any: labels_changed, labels_confirmed, labels_dropped.
        reasons: of every rejected clip.
    """
    line = f"{counts['listed']} clips, {counts['rejected']} rejected"
    if len(reasons):
        frequent = reasons.value_counts()
        line += f" ({', '.join(f'{printable(x)}: {n}' for x, n in frequent[:5].items())}"
        line += f", {len(frequent) - 5} more reasons)" if len(frequent) > 5 else ")"
    names = ("with_warnings", "unlisted", "labels_changed", "labels_confirmed", "labels_dropped")
    for name in names:
        if counts.get(name):
            line += f", {counts[name]} {name.replace('_', ' ')}"
    return line


def format_scores(scores: pd.DataFrame) -> str:
    """Return the scores as an aligned table, without those of single folds.

    Args:
        scores: a row per set of clips: clips, n_clips, map_at_3, map_at_3_low, … accuracy_high.
    """
    shown = scores[~scores["clips"].str.startswith("fold ")]
    width = shown["clips"].str.len().max() + 2
    lines = [f"{'':<{width}}{'clips':>6}   {'MAP@3':<22}   accuracy"]
    for row in shown.itertuples():
        lines.append(
            f"{row.clips:<{width}}{row.n_clips:>6}"
            f"   {row.map_at_3:.3f} ({row.map_at_3_low:.3f} to {row.map_at_3_high:.3f})"
            f"   {row.accuracy:.3f} ({row.accuracy_low:.3f} to {row.accuracy_high:.3f})"
        )
    return "\n".join(lines)


def _log_clip_counts(catalog: CatalogProtocol) -> None:
    if not all(catalog[name].exists() for name in ("clip_counts", "rejected_clips")):
        return
    rejected = catalog["rejected_clips"].load()
    for split, counts in catalog["clip_counts"].load().items():
        reasons = rejected.loc[rejected["split"] == split, "reason"]
        logger.info("%s: %s", split, format_clip_counts(counts, reasons))


def _log_paths(outputs: set[str], catalog: CatalogProtocol) -> None:
    """Log the paths of the main outputs; those below the working directory relative to it."""
    for name in _MAIN_OUTPUTS:
        is_table_of_clips = name in ("rejected_clips", "clip_warnings")
        if name in outputs and not (is_table_of_clips and catalog.load(name).empty):
            path = _relative(str(filepath_of(catalog[name])))
            logger.info("%s: %s", name.replace("_", " "), path)


def _relative(path: str) -> str:
    return path.removeprefix(f"{Path.cwd()}/")
