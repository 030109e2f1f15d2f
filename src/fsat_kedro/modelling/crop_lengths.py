"""Which lengths of spectrogram the networks are shown."""

from collections.abc import Sequence

import numpy as np

MINIMUM = 32
"""Frames that the backbone, which halves them five times, makes one column of.

Of 30 or less TensorFlow computes no gradients on a CPU: oneDNN refuses the convolutions.
"""


def length_range(lengths: np.ndarray, percentiles: tuple[float, float]) -> tuple[int, int]:
    """Shortest and longest length in frames, as percentiles of the clips' lengths (n,).

    None is under `MINIMUM`: shorter clips are continued by their mirror image.
    """
    shortest, longest = np.percentile(lengths, percentiles)
    return max(MINIMUM, round(shortest)), max(MINIMUM, round(longest))


def view_lengths(shortest: int, longest: int, n_lengths: int) -> list[int]:
    """Lengths in frames at equal steps from the shortest to the longest, both included."""
    return [round(length) for length in np.linspace(shortest, longest, n_lengths)]


def training_lengths(shortest: int, longest: int, n_lengths: int | None) -> Sequence[int]:
    """Lengths in frames to draw from: all from the shortest to the longest, or some at equal steps.

    Some alone are for compilers that compile every length anew.
    """
    if n_lengths is None:
        return range(shortest, longest + 1)
    return sorted(set(view_lengths(shortest, longest, n_lengths)))
