"""Which lengths of spectrogram the networks are shown."""

import numpy as np


def length_range(lengths: np.ndarray, percentiles: tuple[float, float]) -> tuple[int, int]:
    """Shortest and longest length in frames, as percentiles of the clips' lengths (n,)."""
    shortest, longest = np.percentile(lengths, percentiles)
    return max(1, round(shortest)), max(1, round(longest))


def view_lengths(shortest: int, longest: int, n_lengths: int) -> list[int]:
    """Lengths in frames at equal steps from the shortest to the longest, both included."""
    return [round(length) for length in np.linspace(shortest, longest, n_lengths)]
