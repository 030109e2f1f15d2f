"""Lengths of the crops that the networks train on and predict from."""

from collections.abc import Sequence

import numpy as np

MINIMUM = 32
"""Length of the shortest crop: 32 frames become one column after the backbone's five halvings.

For 30 or fewer frames TensorFlow computes no gradients on a CPU: oneDNN refuses the convolutions.
"""


def crop_length_range(lengths: np.ndarray, percentiles: tuple[float, float]) -> tuple[int, int]:
    """Return the shortest and longest crop in frames, as percentiles of clip lengths (n,).

    Neither is below `MINIMUM`; shorter clips are padded with their mirror image.
    """
    shortest, longest = np.percentile(lengths, percentiles)
    return max(MINIMUM, round(shortest)), max(MINIMUM, round(longest))


def test_time_lengths(shortest: int, longest: int, n_lengths: int) -> list[int]:
    """Return lengths in frames at equal steps from the shortest to the longest, both included."""
    return [round(length) for length in np.linspace(shortest, longest, n_lengths)]


def training_lengths(shortest: int, longest: int, n_lengths: int | None) -> Sequence[int]:
    """Return the lengths in frames that training draws from: all, if `n_lengths` is None.

    A number at equal steps suits compilers that compile every length anew.
    """
    if n_lengths is None:
        return range(shortest, longest + 1)
    return sorted(set(test_time_lengths(shortest, longest, n_lengths)))
