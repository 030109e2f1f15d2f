"""Plots for people: plain functions from arrays and tables to a figure.

Axes: n clips, c classes, p components, t epochs or frames, m mel bands. A figure belongs to no
window and no global state. Labels come from anywhere, so none is read as a formula.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from fsat_kedro.evaluation.metrics import reliability

_BLUE, _SAND, _TEST = "#4c72a0", "#d9b382", "#c8743a"
_INK, _GREY, _LINE, _PALE = "#333a44", "#6b737e", "#9aa1ab", "#eef0f3"
_FOLD_COLOURS = (
    *("#4c72a0", "#dd9a5b", "#6a9f73", "#b5655f", "#8878ab"),
    *("#7d5c3c", "#cf9fc0", "#3d4550", "#b9b15f", "#6fb1c4"),
)
_COUNTED = 20  # Classes, at most, of a confusion matrix with room for numbers.
_NAMED = 20  # Folds, at most, that a legend names.
_CURVES = {"val_loss": "validation loss (nats)", "val_map_at_3": "validation MAP@3"}


def plot_confusion_matrix(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Shares of each class's clips (rows) by the class they are taken for (columns).

    The colours rise with the square root of the share, so that rare confusions show.

    Args:
        counts: (c, c) clips.
        labels: names of the c classes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(28, max(4, 2.5 + 0.2 * len(labels)))
    size = min(8, 60 * side / len(labels))
    figure = Figure(figsize=(side + 1.3, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    ticks = range(len(labels))
    axes.set_xticks(ticks, _literal(labels), rotation=90, fontsize=size)
    axes.set_yticks(ticks, _literal(labels), fontsize=size)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("most probable class")
    axes.set_ylabel("true class")
    if len(labels) <= _COUNTED:
        _write_counts(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(_percent())
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
            and val_map_at_3, which may be NaN in some. One fold alone is not named, nor are very
            many.
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
    if not 1 < len(next(iter(histories.values()))) <= _NAMED:
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
    axes.yaxis.set_major_formatter(_percent())
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
    axes = _class_rows(figure.subplots(), counts.index)
    left = np.zeros(len(counts))
    for (kind, clips), colour in zip(counts.items(), (_BLUE, _SAND), strict=False):
        axes.barh(range(len(counts)), clips, left=left, color=colour, height=0.75, label=kind)
        left += clips.to_numpy()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("training clips")
    if counts.shape[1] > 1:
        figure.legend(loc="outside upper right", ncols=counts.shape[1], frameon=False, fontsize=9)
    return figure


def plot_class_scores(scores: pd.DataFrame, test_scores: pd.DataFrame | None = None) -> Figure:
    """Average precision at 3 of each class with its number of clips, the worst class on top.

    Args:
        scores: out-of-fold; a row a class: label, clips, map_at_3.
        test_scores: the same of the test clips, in the same order; None or empty if there are
            none. A class without a test clip has NaN.
    """
    tested = test_scores is not None and len(test_scores) > 0
    order = scores["map_at_3"].argsort(kind="stable")
    rows = range(len(scores))
    figure = Figure(figsize=(7, 1.4 + 0.19 * len(scores)), layout="constrained")
    axes = _class_rows(figure.subplots(), scores["label"].iloc[order])
    axes.barh(
        rows,
        scores["map_at_3"].iloc[order],
        color=_BLUE,
        height=0.7,
        label="out-of-fold",
    )
    _write_column(axes, 1.08, "train\nclips", scores["clips"].iloc[order])
    if tested:
        ordered = test_scores.iloc[order]
        axes.plot(ordered["map_at_3"], rows, "D", color=_TEST, markersize=4, label="test")
        axes.lines[-1].set_clip_on(False)
        _write_column(axes, 1.17, "test\nclips", ordered["clips"])
        handles, names = axes.get_legend_handles_labels()
        above = {"loc": "outside upper left", "ncols": 2, "frameon": False, "fontsize": 9}
        figure.legend(handles[::-1], names[::-1], **above)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color=_LINE, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_xlabel("mean average precision at 3")
    return figure


def plot_reliability(tags: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How often the most probable class is the true one, by the probability it was given.

    The points are those of `metrics.reliability`, with their intervals.

    Args:
        tags: by the name of each set of clips, the probability of the most probable class (n,)
            and whether it is the true one (n,).
    """
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    _quiet(axes).plot([0, 1], [0, 1], color=_LINE, linewidth=0.8, linestyle=":")
    for (name, (claimed, right)), colour in zip(tags.items(), (_BLUE, _TEST), strict=False):
        means, shares, low, high = reliability(claimed, right)
        label = (
            f"{name}, {len(right):,} clips: {claimed.mean():.0%} claimed, {right.mean():.0%} right"
        )
        axes.errorbar(
            means,
            shares,
            (shares - low, high - shares),
            color=colour,
            label=label,
            marker="o",
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
        )
        weights = np.full(len(claimed), 1 / len(claimed))
        _quiet(below).hist(
            claimed, np.linspace(0, 1, 21), weights=weights, histtype="step", color=colour
        )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), ylabel="share that is right")
    below.set_xlabel("probability of the most probable class")
    below.set_ylabel("share of clips", fontsize=9)
    for axis in (axes.xaxis, axes.yaxis, below.yaxis):
        axis.set_major_formatter(_percent())
    figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    return figure


def plot_fold_scores(
    held_out: pd.DataFrame,
    cross_validation: Mapping[str, float],
    test: pd.DataFrame | None = None,
    ensemble: Mapping[str, float] | None = None,
) -> Figure:
    """MAP@3 of each fold with its interval, beside that of all of them together.

    Args:
        held_out: a row a fold: fold, and map_at_3, map_at_3_low and map_at_3_high of the clips
            that it held out.
        cross_validation: the same three over the held-out clips of all folds.
        test: as `held_out`, of each fold's network by itself over the test clips; None or empty
            if there are none.
        ensemble: the same three, of all networks together.
    """
    panels = [("each on the clips it held out", "all of them", held_out, cross_validation)]
    if test is not None and len(test):
        panels.append(("each by itself on the test clips", "the ensemble", test, ensemble))
    height = min(12, 1.7 + 0.24 * len(held_out))
    figure = Figure(figsize=(4.2 * len(panels), height), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, name, folds, whole), colour in zip(
        grid, panels, (_BLUE, _TEST), strict=False
    ):
        _quiet(axes).axvspan(whole["map_at_3_low"], whole["map_at_3_high"], color=_PALE, zorder=0)
        axes.axvline(whole["map_at_3"], color=colour, linewidth=1.2, linestyle="--")
        ends = (folds["map_at_3_low"], folds["map_at_3_high"])
        axes.hlines(folds["fold"], *ends, color=colour, linewidth=1, alpha=0.7)
        axes.plot(folds["map_at_3"], folds["fold"], "o", color=colour, markersize=5)
        axes.set_title(title, loc="left", fontsize=10, pad=20)
        words = "{}: {map_at_3:.3f} ({map_at_3_low:.3f} to {map_at_3_high:.3f})"
        axes.text(
            0,
            1.01,
            words.format(name, **whole),
            transform=axes.transAxes,
            fontsize=9,
            color=colour,
            va="bottom",
        )
        axes.set_xlabel("MAP@3, with its 95 % interval")
        axes.tick_params(axis="y", length=0)
    lowest = min(folds["map_at_3_low"].min() for _, _, folds, _ in panels)
    highest = max(folds["map_at_3_high"].max() for _, _, folds, _ in panels)
    grid[0].set_xlim(max(0, lowest - 0.03), min(1.01, highest + 0.03))
    grid[0].set_ylabel("fold")
    if len(held_out) <= _NAMED:
        grid[0].set_yticks(held_out["fold"])
    grid[0].set_ylim(held_out["fold"].max() + 0.6, held_out["fold"].min() - 0.6)
    return figure


def plot_mel_gallery(
    mels: Sequence[np.ndarray], labels: Sequence[str], *, frame: float, centres: np.ndarray
) -> Figure:
    """A log-mel spectrogram a class, each over its own length.

    Args:
        mels: of each class (t, m), dB. The colours reach from 80 dB below its loudest value.
        labels: names of the classes.
        frame: s from a frame to the next.
        centres: (m,) centre frequencies of the mel bands, Hz.
    """
    n_columns = min(len(mels), 6 if len(mels) > 12 else 4)
    n_rows = -(-len(mels) // n_columns)
    figure = Figure(figsize=(2.1 * n_columns + 0.6, 1.5 * n_rows + 0.2), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    kilohertz = [0.1, 0.5, 2, 8]
    bands = np.interp(np.multiply(kilohertz, 1000), centres, np.arange(len(centres)))
    for axes, mel, label in zip(grid.flat, mels, _literal(labels, length=20), strict=False):
        seconds = len(mel) * frame
        axes.imshow(
            mel.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=mel.max() - 80,
            vmax=mel.max(),
            extent=(0, seconds, -0.5, len(centres) - 0.5),
        )
        axes.set_title(label, loc="left", fontsize=8, pad=3)
        axes.set_title(f"{seconds:.1f} s", loc="right", fontsize=7, color=_GREY, pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.set_yticks(bands, [f"{x:g}" for x in kilohertz])
        axes.tick_params(labelsize=6, length=2, color=_LINE, labelleft=axes in grid[:, 0])
        axes.spines[:].set_visible(False)
    for axes in grid.flat[len(mels) :]:
        axes.set_visible(False)
    figure.supylabel("frequency (kHz)", fontsize=8)
    figure.supxlabel("time (s)", fontsize=8)
    return figure


def plot_clip_lengths(
    seconds: Mapping[str, np.ndarray],
    shown: tuple[float, float],
    percentiles: tuple[float, float],
) -> Figure:
    """Distribution of the clips' lengths, a line a split.

    Args:
        seconds: of each split, lengths in s; a split without clips is left out.
        shown: shortest and longest span shown to networks, in s.
        percentiles: of the training clips' lengths, which these spans come from.
    """
    seconds = {split: lengths for split, lengths in seconds.items() if len(lengths)}
    longest = max([shown[1], *(lengths.max() for lengths in seconds.values())])
    fewest = min(map(len, seconds.values()), default=1)
    edges = np.linspace(0, longest, min(60, 3 + round(2 * fewest**0.5)))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = _quiet(figure.subplots())
    label = "shown to networks, {:.2f} s to {:.2f} s".format(*shown)
    axes.axvspan(*shown, color=_PALE, zorder=0, label=label)
    for length, percentile, side in zip(shown, percentiles, ("right", "left"), strict=True):
        axes.axvline(length, color=_INK, linewidth=0.8, linestyle=":")
        above = {"va": "bottom", "ha": side, "transform": axes.get_xaxis_transform()}
        axes.text(length, 1.01, f"{percentile:g} %", fontsize=8, color=_GREY, **above)
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
    axes.yaxis.set_major_formatter(_percent())
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


def _percent() -> FuncFormatter:
    """Shares as percentages, with no more digits than they need."""
    return FuncFormatter(lambda share, _: f"{100 * share:.3g}%")


def _class_rows(axes: Axes, labels: Sequence[str]) -> Axes:
    """Axes with a row a class, the first on top."""
    _quiet(axes).tick_params(axis="y", length=0)
    axes.set_yticks(range(len(labels)), _literal(labels), fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return axes


def _write_column(axes: Axes, x: float, title: str, numbers: Sequence[int]) -> None:
    """Numbers beside the rows of classes, at `x` in parts of the axes' width."""
    beside = {"ha": "right", "transform": axes.get_yaxis_transform(), "fontsize": 8}
    for row, number in enumerate(numbers):
        axes.text(x, row, f"{number:,}", va="center", color=_GREY, **beside)
    axes.text(x, -0.7, title, va="bottom", color=_INK, **beside)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    """The number of clips into each cell of a confusion matrix that has some."""
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.35 else _INK
        number = f"{counts[row, column]:,}"
        axes.text(column, row, number, ha="center", va="center", fontsize=7, color=colour)


def _literal(labels: Iterable[str], *, length: int = 40) -> list[str]:
    """Labels as matplotlib writes them as they are, but for their ends if they are long.

    What stands between two dollar signs it would read as a formula.
    """
    shown = (x if len(x) <= length else f"{x[: length - 1]}…" for x in map(str, labels))
    return [label.replace("$", r"\$") for label in shown]


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
