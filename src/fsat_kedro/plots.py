"""Plots for people: plain functions from arrays and tables to a figure.

Axes: c classes, p components, t epochs. A figure belongs to no window and no global state.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter

_BLUE, _SAND = "#4c72a0", "#d9b382"
_INK, _GREY, _LINE, _PALE = "#333a44", "#6b737e", "#9aa1ab", "#eef0f3"
_FOLD_COLOURS = (
    *("#4c72a0", "#dd9a5b", "#6a9f73", "#b5655f", "#8878ab"),
    *("#7d5c3c", "#cf9fc0", "#3d4550", "#b9b15f", "#6fb1c4"),
)
_CURVES = {"val_loss": "validation loss (nats)", "val_map_at_3": "validation MAP@3"}


def plot_confusion_matrix(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Shares of each class's clips (rows) by the class they are taken for (columns).

    The colours rise with the square root of the share, so that rare confusions show.

    Args:
        counts: (c, c) clips.
        labels: names of the c classes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4, 2.5 + 0.2 * len(labels))
    figure = Figure(figsize=(side + 1.3, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("most probable class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label("share of the true class's clips", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def plot_learning_curves(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Validation loss and MAP@3 by epoch, a column of plots a stage, a line a fold.

    Folds may leave a phase after different numbers of epochs. Every phase is drawn from where the
    longest fold left the one before, so that like stands above like.

    Args:
        histories: of each stage, the history of each fold: a row an epoch, with phase, val_loss
            and val_map_at_3, which may be NaN in some. One fold alone is not named.
    """
    figure = Figure(figsize=(5.5 * len(histories), 6.5), layout="constrained")
    grid = figure.subplots(len(_CURVES), len(histories), sharex="col", sharey="row", squeeze=False)
    for column, (stage, folds) in zip(grid.T, histories.items(), strict=True):
        phases = _phase_epochs(folds)
        _name_phases(column[0], phases)
        for axes, (metric, label) in zip(column, _CURVES.items(), strict=True):
            _quiet(axes)
            _shade_phases(axes, phases)
            _draw_folds(axes, [_align_phases(history, metric, phases) for history in folds])
            if axes in grid[:, 0]:
                axes.set_ylabel(label)
        column[0].set_title(f"stage {stage}", loc="left", pad=18, fontsize=10)
        column[-1].set_xlabel("epoch, every phase from a common start")
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0, 0].set_yscale("log")
    grid[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    grid[0, 0].yaxis.set_minor_formatter("")
    if len(next(iter(histories.values()))) == 1:
        return figure
    handles, names = grid[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=9)
    for line in legend.get_lines():
        line.set(alpha=1, linewidth=2)
    return figure


def plot_explained_variance(ratios: np.ndarray) -> Figure:
    """Variance of the summary features that the first components explain together.

    Args:
        ratios: (p,) share of the variance that each kept component explains.
    """
    explained = np.concatenate([[0], np.cumsum(ratios)])
    n_kept = len(ratios)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = _quiet(figure.subplots())
    axes.plot(explained, color=_BLUE)
    axes.plot([n_kept], explained[-1:], "o", color=_BLUE, markersize=5)
    summary = f"{n_kept} components kept: {explained[-1]:.1%} of the variance"
    axes.set_title(summary, loc="right", fontsize=10, color=_INK)
    axes.set_xlim(0, n_kept * 1.02)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("principal components")
    axes.set_ylabel("explained variance, cumulative")
    return figure


def plot_class_balance(counts: pd.DataFrame) -> Figure:
    """Clips per class as bars, the most frequent class on top.

    Args:
        counts: clips, a row a class; the columns are stacked and, if there are several, named.
    """
    totals = counts.sum(axis=1).sort_index().sort_values(ascending=False, kind="stable")
    counts = counts.loc[totals.index]
    figure = Figure(figsize=(7, 1.2 + 0.19 * len(counts)), layout="constrained")
    axes = _quiet(figure.subplots())
    left = np.zeros(len(counts))
    for (kind, clips), colour in zip(counts.items(), (_BLUE, _SAND), strict=False):
        axes.barh(counts.index, clips, left=left, color=colour, height=0.75, label=kind)
        left += clips.to_numpy()
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("training clips")
    if counts.shape[1] > 1:
        figure.legend(loc="outside upper right", ncols=counts.shape[1], frameon=False, fontsize=9)
    return figure


def plot_clip_lengths(seconds: Mapping[str, np.ndarray], shown: tuple[float, float]) -> Figure:
    """Distribution of the clips' lengths, a line a split.

    Args:
        seconds: of each split, lengths in s; a split without clips is left out.
        shown: shortest and longest span shown to networks, in s.
    """
    seconds = {split: lengths for split, lengths in seconds.items() if len(lengths)}
    longest = max([shown[1], *(lengths.max() for lengths in seconds.values())])
    fewest = min(map(len, seconds.values()), default=1)
    edges = np.linspace(0, longest, min(60, 3 + round(2 * fewest**0.5)))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = _quiet(figure.subplots())
    label = f"shown to networks, {shown[0]:.2f} s to {shown[1]:.2f} s"
    axes.axvspan(*shown, color=_PALE, zorder=0, label=label)
    for length in shown:
        axes.axvline(length, color=_INK, linewidth=0.8, linestyle=":")
    for index, (split, lengths) in enumerate(seconds.items()):
        axes.stairs(
            np.histogram(lengths, edges)[0] / len(lengths),
            edges,
            fill=index == 0,
            color=_BLUE if index == 0 else _FOLD_COLOURS[index % len(_FOLD_COLOURS)],
            alpha=0.75 if index == 0 else 1,
            linewidth=1.2,
            label=f"{split}, {len(lengths):,} clips",
        )
    axes.set_xlim(0, 1.01 * longest)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("length of the trimmed clip (s)")
    axes.set_ylabel("share of the split's clips")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _quiet(axes: Axes) -> Axes:
    """Axes without a box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.tick_params(color=_LINE, labelsize=9)
    return axes


def _phase_epochs(folds: Sequence[pd.DataFrame]) -> pd.Series:
    """Epochs of each phase in the fold where it is longest, in the order of the phases."""
    phases = pd.concat(folds)["phase"].unique()
    epochs = [history["phase"].value_counts().reindex(phases, fill_value=0) for history in folds]
    return pd.concat(epochs, axis=1).max(axis=1)


def _align_phases(history: pd.DataFrame, metric: str, phases: pd.Series) -> pd.Series:
    """A metric by epoch (t,), NaN where the fold had left the phase before.

    Epochs without a validation are left out; where there are such, no fold leaves a phase early.
    """
    starts = phases.cumsum() - phases
    epoch = history["phase"].map(starts) + history.groupby("phase").cumcount() + 1
    aligned = history[metric].set_axis(epoch)
    if aligned.isna().any():
        return aligned.dropna()
    return aligned.reindex(range(1, phases.sum() + 1))


def _draw_folds(axes: Axes, curves: list[pd.Series]) -> None:
    """A line a fold."""
    for fold, curve in enumerate(curves, start=1):
        axes.plot(
            curve.index,
            curve,
            label=f"fold {fold}",
            color=_FOLD_COLOURS[(fold - 1) % len(_FOLD_COLOURS)],
            linewidth=0.9,
            alpha=0.7,
            marker="o" if len(curve) <= 40 else None,
            markersize=3,
        )


def _shade_phases(axes: Axes, phases: pd.Series) -> None:
    """Every second phase on a pale ground."""
    ends = phases.cumsum() + 0.5
    for end, epochs in list(zip(ends, phases, strict=True))[1::2]:
        axes.axvspan(end - epochs, end, color=_PALE, zorder=0)
    axes.set_xlim(0.5, ends.iloc[-1])


def _name_phases(axes: Axes, phases: pd.Series) -> None:
    """The phases' names above the axes."""
    middles = phases.cumsum() - phases / 2 + 0.5
    above = {"ha": "center", "va": "bottom", "transform": axes.get_xaxis_transform()}
    for phase, middle in middles.items():
        axes.text(middle, 1.01, phase, fontsize=8, color=_GREY, **above)
