"""Training clips whose label may be wrong, by confident learning.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, 2021. (The
authors' library, cleanlab, has a licence that would bind the users of this project.)

Axes: n clips, c classes.
"""

import numpy as np
import pandas as pd

from fsat_kedro.evaluation.predictions import Predictions


def find_label_issues(predictions: Predictions) -> pd.DataFrame:
    """Rank the usable training clips by the quality of their labels, worst first.

    Args:
        predictions: out-of-fold.

    Returns:
        row in the split; fname, label, verified and correction of the clip; quality of the label,
        0 to 1: below 0.5 another class is more probable; suggested label, the most probable of the
        other classes, and its probability; issue, whether the label is probably wrong: some other
        class is at least as probable as it is on average for the clips that are labelled with it.
    """
    rows = np.flatnonzero(predictions.is_usable & (predictions.targets >= 0))
    targets, probabilities = predictions.targets[rows], predictions.probabilities[rows]
    labels = np.array(predictions.labels, dtype=object)
    own = targets[:, None] == np.arange(len(labels))
    others = np.where(own, -np.inf, probabilities)
    confidences = np.array([probabilities[targets == x, x].mean() for x in range(len(labels))])
    sure = others >= confidences
    suggested = (others + sure).argmax(axis=1)  # One of those that are sure, if there are any.
    second = others.max(axis=1, initial=0)
    columns = ["fname", "label", "verified", "correction"]
    table = predictions.clips.iloc[rows].reindex(columns=columns, fill_value="")
    table = table.assign(
        quality=(1 + probabilities[own] - second) / 2,
        suggested=labels[suggested],
        probability=probabilities[np.arange(len(rows)), suggested],
        issue=sure.any(axis=1),
    )
    table.insert(0, "row", rows)
    return table.sort_values("quality", kind="stable", ignore_index=True)


def undecided_issues(predictions: Predictions) -> pd.DataFrame:
    """Return the probably wrong labels that no correction has changed or confirmed, worst first."""
    table = find_label_issues(predictions)
    return table[table["issue"] & (table["correction"] == "")].reset_index(drop=True)
