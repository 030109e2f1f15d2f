"""Plots of clips, features, training and scores: functions from arrays and tables to a figure.

Axes: n clips, c classes, p components, t epochs or frames, m mel bands. No function uses pyplot or
other global state. Class labels are drawn literally, never as mathematical formulas.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from fsat_kedro.evaluation.metrics import reliability_curve

_BLUE, _SAND, _ORANGE = "#4c72a0", "#d9b382", "#c8743a"
_INK, _GREY, _LIGHT_GREY, _SHADE = "#333a44", "#6b737e", "#9aa1ab", "#eef0f3"
_FOLD_COLORS = (
    *("#4c72a0", "#dd9a5b", "#6a9f73", "#b5655f", "#8878ab"),
    *("#7d5c3c", "#cf9fc0", "#3d4550", "#b9b15f", "#6fb1c4"),
)
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9}
_MAX_CLASSES_WITH_COUNTS = 20  # Cells of a larger confusion matrix are too small for numbers.
_MAX_FOLDS_WITH_NAMES = 20
_CURVES = {"val_loss": "validation loss (nats)", "val_map_at_3": "validation MAP@3"}


def plot_confusion_matrix(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Plot the fractions of each class's clips (rows) by their most probable class (columns).

    The color scale is a square root, so that rare confusions are visible.

    Args:
        counts: (c, c) clips.
        labels: names of the c classes.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(28, max(4, 2.5 + 0.2 * len(labels)))
    size = min(8, 60 * side / len(labels))
    figure = Figure(figsize=(side + 1.3, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(len(labels)), _escape(labels), rotation=rotation, fontsize=size)
        axis.set_ticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="most probable class", ylabel="true class")
    if len(labels) <= _MAX_CLASSES_WITH_COUNTS:
        for row, column in np.argwhere(counts):
            color = "white" if fractions[row, column] > 0.35 else _INK
            number = f"{counts[row, column]:,}"
            axes.text(column, row, number, ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(_percent_formatter())
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label("fraction of the true class's clips", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def plot_learning_curves(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Plot validation loss and MAP@3 by epoch, a column of axes per stage, a line per fold.

    Early stopping ends a phase at different epochs in different folds. The phases are aligned:
    each starts where the longest fold ended the previous one.

    Args:
        histories: for each stage, the history of each fold: a row per epoch with phase, val_loss
            and val_map_at_3. The metrics are NaN in epochs without validation. A legend names the
            folds, unless there is only one or there are more than 20.
    """
    figure = Figure(figsize=(5.5 * len(histories), 6.5), layout="constrained")
    grid = figure.subplots(len(_CURVES), len(histories), sharex="col", sharey="row", squeeze=False)
    for column, (stage, folds) in zip(grid.T, histories.items(), strict=True):
        phases = _phase_lengths(folds)
        for phase, center in (phases.cumsum() - phases / 2 + 0.5).items():
            _write_above(column[0], center, phase, ha="center")
        for axes, metric in zip(column, _CURVES, strict=True):
            _shade_phases(_remove_box(axes), phases)
            _plot_folds(axes, [_align_phases(history, metric, phases) for history in folds])
        column[0].set_title(f"stage {stage}", loc="left", pad=18, fontsize=10)
        column[-1].set_xlabel("epoch (phases aligned across folds)")
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, label in zip(grid[:, 0], _CURVES.values(), strict=True):
        axes.set_ylabel(label)
    grid[0, 0].set_yscale("log")
    grid[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    grid[0, 0].yaxis.set_minor_formatter("")
    if 1 < len(next(iter(histories.values()))) <= _MAX_FOLDS_WITH_NAMES:
        handles, names = grid[0, 0].get_legend_handles_labels()
        legend = figure.legend(handles, names, loc="outside right upper", **_LEGEND)
        for line in legend.get_lines():
            line.set(alpha=1, linewidth=2)
    return figure


def plot_explained_variance(ratios: np.ndarray) -> Figure:
    """Plot the cumulative fraction of the variance that the p kept components explain, (p,)."""
    explained = np.concatenate([[0], np.cumsum(ratios)])
    n_kept = len(ratios)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = _remove_box(figure.subplots())
    axes.plot(explained, color=_BLUE)
    axes.plot([n_kept], explained[-1:], "o", color=_BLUE, markersize=5)
    summary = f"{n_kept} components kept: {explained[-1]:.1%} of the variance"
    axes.set_title(summary, loc="right", fontsize=10, color=_INK)
    axes.set(xlim=(0, n_kept * 1.02), xlabel="principal components")
    axes.set(ylim=(0, 1.02), ylabel="cumulative explained variance")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(_percent_formatter())
    return figure


def plot_class_balance(counts: pd.DataFrame) -> Figure:
    """Plot the clips per class (row) as bars of stacked columns, the most frequent class on top."""
    totals = counts.sum(axis=1).sort_index().sort_values(ascending=False, kind="stable")
    counts = counts.loc[totals.index]
    figure = Figure(figsize=(7, 1.2 + 0.19 * len(counts)), layout="constrained")
    axes = _set_class_rows(figure.subplots(), counts.index)
    left = np.zeros(len(counts))
    for (kind, clips), color in zip(counts.items(), (_BLUE, _SAND), strict=False):
        axes.barh(range(len(counts)), clips, left=left, color=color, height=0.75, label=kind)
        left += clips.to_numpy()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("training clips")
    if counts.shape[1] > 1:
        figure.legend(loc="outside upper right", ncols=counts.shape[1], **_LEGEND)
    return figure


def plot_class_scores(scores: pd.DataFrame, test_scores: pd.DataFrame | None = None) -> Figure:
    """Plot the average precision at 3 and the number of clips of each class, worst class on top.

    Args:
        scores: out-of-fold; a row per class: label, clips, map_at_3.
        test_scores: same for the test clips, in the same order; None or empty if there are none.
            map_at_3 is NaN for a class without test clips.
    """
    order = scores["map_at_3"].argsort(kind="stable")
    scores, rows = scores.iloc[order], range(len(scores))
    figure = Figure(figsize=(7, 1.4 + 0.19 * len(scores)), layout="constrained")
    axes = _set_class_rows(figure.subplots(), scores["label"])
    axes.barh(rows, scores["map_at_3"], color=_BLUE, height=0.7, label="out-of-fold")
    _annotate_rows(axes, 1.08, "train\nclips", scores["clips"])
    if test_scores is not None and len(test_scores):
        test_scores = test_scores.iloc[order]
        axes.plot(test_scores["map_at_3"], rows, "D", color=_ORANGE, markersize=4, label="test")
        axes.lines[-1].set_clip_on(False)
        _annotate_rows(axes, 1.17, "test\nclips", test_scores["clips"])
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], names[::-1], loc="outside upper left", ncols=2, **_LEGEND)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color=_LIGHT_GREY, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_xlabel("mean average precision at 3")
    return figure


def plot_reliability(predictions: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Plot the accuracy of the most probable class by its probability, with 95 % intervals.

    Args:
        predictions: by the name of each set of clips, the probability of the most probable class
            (n,) and a mask of the clips where it is the true class (n,).
    """
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    _remove_box(axes).plot([0, 1], [0, 1], color=_LIGHT_GREY, linewidth=0.8, linestyle=":")
    _remove_box(below)
    for name, color in zip(predictions, (_BLUE, _ORANGE), strict=False):
        confidence, correct = predictions[name]
        x, y, low, high = reliability_curve(confidence, correct)
        label = f"{name}, {len(correct):,} clips: mean probability {confidence.mean():.0%}, "
        label += f"accuracy {correct.mean():.0%}"
        style: dict[str, Any] = {"markersize": 4, "linewidth": 1.2, "elinewidth": 0.8}
        axes.errorbar(x, y, (y - low, high - y), fmt="o-", color=color, label=label, **style)
        weights = np.full(len(confidence), 1 / len(confidence))
        bins = np.linspace(0, 1, 21)
        below.hist(confidence, bins, weights=weights, histtype="step", color=color)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), ylabel="accuracy")
    below.set_xlabel("probability of the most probable class")
    below.set_ylabel("fraction of clips", fontsize=9)
    for axis in (axes.xaxis, axes.yaxis, below.yaxis):
        axis.set_major_formatter(_percent_formatter())
    figure.legend(loc="outside upper left", **_LEGEND)
    return figure


def plot_fold_scores(
    out_of_fold: pd.DataFrame,
    cross_validation: Mapping[str, float],
    test: pd.DataFrame | None = None,
    ensemble: Mapping[str, float] | None = None,
) -> Figure:
    """Plot MAP@3 of each fold with its interval, beside that of all folds together.

    Args:
        out_of_fold: a row per fold: fold, and map_at_3, map_at_3_low and map_at_3_high of the
            clips that it held out.
        cross_validation: the same three scores over the held-out clips of all folds.
        test: like `out_of_fold`, on the test clips; None or empty if there are none.
        ensemble: the same three scores of all networks together on the test clips.
    """
    panels = [("each network on its held-out clips", "all folds", out_of_fold, cross_validation)]
    if test is not None and ensemble is not None and len(test):
        panels.append(("each network on the test clips", "ensemble", test, ensemble))
    height = min(12, 1.7 + 0.24 * len(out_of_fold))
    figure = Figure(figsize=(4.2 * len(panels), height), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, panel, color in zip(grid, panels, (_BLUE, _ORANGE), strict=False):
        title, name, folds, pooled = panel
        low, high = pooled["map_at_3_low"], pooled["map_at_3_high"]
        _remove_box(axes).axvspan(low, high, color=_SHADE, zorder=0)
        axes.axvline(pooled["map_at_3"], color=color, linewidth=1.2, linestyle="--")
        ends = folds["map_at_3_low"], folds["map_at_3_high"]
        axes.hlines(folds["fold"], *ends, color=color, linewidth=1, alpha=0.7)
        axes.plot(folds["map_at_3"], folds["fold"], "o", color=color, markersize=5)
        axes.set_title(title, loc="left", fontsize=10, pad=20)
        summary = f"{name}: {pooled['map_at_3']:.3f} ({low:.3f} to {high:.3f})"
        style: dict[str, Any] = {"va": "bottom", "fontsize": 9, "color": color}
        axes.text(0, 1.01, summary, transform=axes.transAxes, **style)
        axes.set_xlabel("MAP@3 with 95 % interval")
        axes.tick_params(axis="y", length=0)
    lowest = min(folds["map_at_3_low"].min() for _, _, folds, _ in panels)
    highest = max(folds["map_at_3_high"].max() for _, _, folds, _ in panels)
    grid[0].set_xlim(max(0, lowest - 0.03), min(1.01, highest + 0.03))
    grid[0].set_ylabel("fold")
    if len(out_of_fold) <= _MAX_FOLDS_WITH_NAMES:
        grid[0].set_yticks(out_of_fold["fold"])
    grid[0].set_ylim(out_of_fold["fold"].max() + 0.6, out_of_fold["fold"].min() - 0.6)
    return figure


def plot_mel_gallery(
    mels: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    hop_seconds: float,
    frequencies: np.ndarray,
) -> Figure:
    """Plot a log-mel spectrogram of each class, each over its own length.

    Args:
        mels: for each class (t, m), dB. The colors cover 80 dB below the loudest value of each.
        labels: names of the classes.
        hop_seconds: from a frame to the next.
        frequencies: (m,) center frequencies of the mel bands, Hz.
    """
    n_columns = min(len(mels), 6 if len(mels) > 12 else 4)
    n_rows = -(-len(mels) // n_columns)
    figure = Figure(figsize=(2.1 * n_columns + 0.6, 1.5 * n_rows + 0.2), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    kilohertz = [0.1, 0.5, 2, 8]
    n_mels = len(frequencies)
    bands = np.interp(np.multiply(kilohertz, 1000), frequencies, np.arange(n_mels))
    for axes, mel, label in zip(grid.flat, mels, _escape(labels, max_length=20), strict=False):
        seconds = len(mel) * hop_seconds
        image = axes.imshow(mel.T, origin="lower", aspect="auto", cmap="magma")
        image.set(clim=(mel.max() - 80, mel.max()), extent=(0, seconds, -0.5, n_mels - 0.5))
        axes.set_title(label, loc="left", fontsize=8, pad=3)
        axes.set_title(f"{seconds:.1f} s", loc="right", fontsize=7, color=_GREY, pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.set_yticks(bands, [f"{x:g}" for x in kilohertz])
        axes.tick_params(labelsize=6, length=2, color=_LIGHT_GREY, labelleft=axes in grid[:, 0])
        axes.spines[:].set_visible(False)
    for axes in grid.flat[len(mels) :]:
        axes.set_visible(False)
    figure.supylabel("frequency (kHz)", fontsize=8)
    figure.supxlabel("time (s)", fontsize=8)
    return figure


def plot_clip_lengths(
    seconds: Mapping[str, np.ndarray],
    crop_range: tuple[float, float],
    percentiles: tuple[float, float],
) -> Figure:
    """Plot the distribution of clip lengths, a line per split.

    Args:
        seconds: lengths in s by split; a split without clips is left out.
        crop_range: shortest and longest crop, in s.
        percentiles: of the training clips' lengths, where the two crop lengths come from.
    """
    seconds = {split: lengths for split, lengths in seconds.items() if len(lengths)}
    longest = max([crop_range[1], *(lengths.max() for lengths in seconds.values())])
    fewest = min(map(len, seconds.values()), default=1)
    edges = np.linspace(0, longest, min(60, 3 + round(2 * fewest**0.5)))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = _remove_box(figure.subplots())
    label = "crop lengths, {:.2f} s to {:.2f} s".format(*crop_range)
    axes.axvspan(*crop_range, color=_SHADE, zorder=0, label=label)
    for length, percentile, side in zip(crop_range, percentiles, ("right", "left"), strict=True):
        axes.axvline(length, color=_INK, linewidth=0.8, linestyle=":")
        _write_above(axes, length, f"{percentile:g} %", ha=side)
    for index, (split, lengths) in enumerate(seconds.items()):
        fractions = np.histogram(lengths, edges)[0] / len(lengths)
        color, label = _FOLD_COLORS[index], f"{split}, {len(lengths):,} clips"
        bars = axes.stairs(fractions, edges, fill=index == 0, color=color, label=label)
        bars.set(alpha=1 if index else 0.75, linewidth=1.2)
    axes.set_xlim(0, 1.01 * longest)
    axes.yaxis.set_major_formatter(_percent_formatter())
    axes.set(xlabel="length of the trimmed clip (s)", ylabel="fraction of the split's clips")
    axes.legend(**_LEGEND)
    return figure


def _remove_box(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LIGHT_GREY)
    axes.tick_params(color=_LIGHT_GREY, labelsize=9)
    return axes


def _percent_formatter() -> FuncFormatter:
    """Return a formatter of fractions as percentages, with no more digits than they need."""
    return FuncFormatter(lambda fraction, _: f"{100 * fraction:.3g}%")


def _set_class_rows(axes: Axes, labels: Sequence[str]) -> Axes:
    """Label the rows of the axes with the classes, the first on top."""
    _remove_box(axes).tick_params(axis="y", length=0)
    axes.set_yticks(range(len(labels)), _escape(labels), fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return axes


def _annotate_rows(axes: Axes, x: float, title: str, numbers: Sequence[int]) -> None:
    """Write numbers beside the class rows; `x` is a fraction of the axes' width."""
    style: dict[str, Any] = {"ha": "right", "fontsize": 8, "transform": axes.get_yaxis_transform()}
    for row, number in enumerate(numbers):
        axes.text(x, row, f"{number:,}", va="center", color=_GREY, **style)
    axes.text(x, -0.7, title, va="bottom", color=_INK, **style)


def _escape(labels: Iterable[str], *, max_length: int = 40) -> list[str]:
    """Shorten long labels, and escape the dollar signs that matplotlib reads as formulas."""
    short = (x if len(x) <= max_length else f"{x[: max_length - 1]}…" for x in map(str, labels))
    return [label.replace("$", r"\$") for label in short]


def _phase_lengths(folds: Sequence[pd.DataFrame]) -> pd.Series:
    """Return the epochs of each phase in the fold where it is longest, in order of the phases."""
    phases = pd.concat(folds)["phase"].unique()
    epochs = [history["phase"].value_counts().reindex(phases, fill_value=0) for history in folds]
    return pd.concat(epochs, axis=1).max(axis=1)


def _align_phases(history: pd.DataFrame, metric: str, phases: pd.Series) -> pd.Series:
    """Return a metric by aligned epoch (t,), NaN after a phase that ended early.

    A history with epochs without validation comes from a schedule without early stopping. Those
    epochs are left out, so that the line is not interrupted.
    """
    starts = phases.cumsum() - phases
    epoch = history["phase"].map(starts) + history.groupby("phase").cumcount() + 1
    aligned = history[metric].set_axis(epoch)
    if aligned.isna().any():
        return aligned.dropna()
    return aligned.reindex(range(1, phases.sum() + 1))


def _plot_folds(axes: Axes, curves: list[pd.Series]) -> None:
    style: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.7, "markersize": 3}
    for fold, (curve, color) in enumerate(zip(curves, cycle(_FOLD_COLORS), strict=False), start=1):
        marker = "o" if len(curve) <= 40 else None
        axes.plot(curve, label=f"fold {fold}", color=color, marker=marker, **style)


def _shade_phases(axes: Axes, phases: pd.Series) -> None:
    ends = phases.cumsum() + 0.5
    for end, epochs in zip(ends[1::2], phases[1::2], strict=True):
        axes.axvspan(end - epochs, end, color=_SHADE, zorder=0)
    axes.set_xlim(0.5, ends.iloc[-1])


def _write_above(axes: Axes, x: float, text: str, *, ha: str) -> None:
    style: dict[str, Any] = {"ha": ha, "va": "bottom", "fontsize": 8, "color": _GREY}
    axes.text(x, 1.01, text, transform=axes.get_xaxis_transform(), **style)
