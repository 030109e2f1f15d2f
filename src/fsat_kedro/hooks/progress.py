"""What the terminal shows of a run: a line a node, and at the end what came of it all."""

from __future__ import annotations

import copy
import logging
import os
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from kedro.framework.cli.utils import KedroCliError
from kedro.framework.hooks import hook_impl

from fsat_kedro.files import is_url
from fsat_kedro.hooks.outputs import filepath_of

if TYPE_CHECKING:
    import pandas as pd
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)

_SHOWN = {
    "report": "report",
    "submission": "submission",
    "tags": "tags",
    "scores": "scores",
    "rejected_clips": "rejected clips",
    "clip_warnings": "clip warnings",
}
"""Outputs that people look for, in this order, and what they are called."""


class TerminalHooks:
    """Tells which node runs, and at the end what became of clips, scores and outputs.

    Kedro's own lines, with all inputs and outputs of each node, are there with `--verbose`.
    """

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Count the nodes."""
        self._n_nodes, self._n_begun = len(pipeline.nodes), 0
        if KedroCliError.VERBOSE_ERROR:
            logging.getLogger("kedro").setLevel(logging.INFO)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Tell what begins."""
        if "gpu" in node.tags and not KedroCliError.VERBOSE_ERROR:
            import_keras_quietly()
        self._n_begun += 1
        logger.info("%d/%d %s", self._n_begun, self._n_nodes, node.name)

    def for_worker(self, node: Node, hosts: set[str]) -> TerminalHooks:
        """Hooks that tell the same in another process."""
        hooks = copy.copy(self)
        self._n_begun += 1
        return hooks

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Tell how many clips were used, how well they are tagged, and where to look."""
        if any(name.endswith("_clips") for name in pipeline.datasets()):
            _tell_clips(catalog)
        made = pipeline.all_outputs()
        if "scores" in made:
            logger.info(
                "Scores, with 95 %% intervals:\n%s", scores_in_lines(catalog.load("scores"))
            )
        _tell_places(made, catalog)


def import_keras_quietly() -> None:
    """Import Keras without what TensorFlow's C++ side tells of itself, for which it has no setting.

    If that fails, it is told.
    """
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with TemporaryFile() as told:
        os.dup2(told.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            told.seek(0)
            os.write(stderr, told.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def clips_in_words(counts: dict[str, int], reasons: pd.Series) -> str:
    """What became of a split's clips, in a line.

    Args:
        counts: of listed, rejected, noted and unlisted clips.
        reasons: of every rejected clip.
    """
    words = f"{counts['listed']} clips, {counts['rejected']} rejected"
    if len(reasons):
        common = reasons.value_counts()
        words += f" ({', '.join(f'{reason}: {n}' for reason, n in common[:5].items())}"
        words += f", {len(common) - 5} more reasons)" if len(common) > 5 else ")"
    for name in ("with_warnings", "unlisted"):
        if counts[name]:
            words += f", {counts[name]} {name.replace('_', ' ')}"
    return words


def scores_in_lines(scores: pd.DataFrame) -> str:
    """The table of scores, its columns below each other and without those of single folds.

    Args:
        scores: a row a set of clips: clips, n_clips, map_at_3, map_at_3_low, … accuracy_high.
    """
    shown = scores[~scores["clips"].str.startswith("fold ")]
    lines = [f"{'':<18}{'clips':>6}   {'MAP@3':<22}   accuracy"]
    for row in shown.itertuples():
        lines.append(
            f"{row.clips:<18}{row.n_clips:>6}"
            f"   {row.map_at_3:.3f} ({row.map_at_3_low:.3f} to {row.map_at_3_high:.3f})"
            f"   {row.accuracy:.3f} ({row.accuracy_low:.3f} to {row.accuracy_high:.3f})"
        )
    return "\n".join(lines)


def _tell_clips(catalog: CatalogProtocol) -> None:
    if not all(catalog[name].exists() for name in ("clip_counts", "rejected_clips")):
        return
    rejected = catalog["rejected_clips"].load()
    for split, counts in catalog["clip_counts"].load().items():
        reasons = rejected.loc[rejected["split"] == split, "reason"]
        logger.info("%s: %s", split, clips_in_words(counts, reasons))


def _tell_places(made: set[str], catalog: CatalogProtocol) -> None:
    tables = {"rejected_clips", "clip_warnings"}
    for name, words in _SHOWN.items():
        if name in made and not (name in tables and len(catalog.load(name)) == 0):
            path = filepath_of(catalog[name])
            place = path if is_url(path) else _shortened(Path(path))
            logger.info("%s: %s", words, place)
    if "scores" in made:
        logger.info("Next: kedro viz run --include-hooks, mlflow ui, kedro tag FILE")


def _shortened(path: Path) -> Path:
    """A path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
