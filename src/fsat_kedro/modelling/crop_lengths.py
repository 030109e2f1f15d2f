"""Lengths of the crops that the networks train on and predict from."""

from collections.abc import Sequence

import numpy as np

from fsat_kedro.parameters import CropLengths, TestTimeCrops

MINIMUM = 32
"""Length of the shortest crop: 32 frames become one column after the backbone's five halvings.

For 30 or fewer frames TensorFlow computes no gradients on a CPU: oneDNN refuses the convolutions.
"""


def crop_length_range(
    lengths: np.ndarray, settings: CropLengths, *, frames_per_second: float
) -> tuple[int, int]:
    """Return the shortest and longest crop in frames, for clips of some lengths in frames (n,).

    Neither is below `MINIMUM`; shorter clips are padded with their mirror image.
    """
    if settings.seconds is None:
        shortest, longest = np.percentile(lengths, settings.percentiles)
    else:
        shortest, longest = (frames_per_second * seconds for seconds in settings.seconds)
    return max(MINIMUM, round(shortest)), max(MINIMUM, round(longest))


def test_time_lengths(shortest: int, longest: int, n_lengths: int) -> list[int]:
    """Return lengths in frames at equal steps from the shortest to the longest, both included."""
    return [round(length) for length in np.linspace(shortest, longest, n_lengths)]


def test_time_crops(shortest: int, longest: int, settings: TestTimeCrops) -> tuple[list[int], int]:
    """Return the lengths in frames, ascending, of a clip's test-time crops, and crops of each."""
    lengths = test_time_lengths(shortest, longest, settings.n_lengths)
    if settings.subset == "thinned":
        # From the longest down: the other half scores less, see benchmarks/inference.md.
        return sorted(lengths[::-2]), 1
    return lengths, settings.crops_per_length


def predictions_per_clip(settings: TestTimeCrops, *, n_folds: int) -> int:
    """Return the number of predictions that the ensemble combines for each clip.

    The pieces of a long clip count as one.
    """
    if settings.subset == "whole":
        return n_folds
    lengths, crops_per_length = test_time_crops(MINIMUM, MINIMUM, settings)
    return n_folds * len(lengths) * crops_per_length


def training_lengths(shortest: int, longest: int, n_lengths: int | None) -> Sequence[int]:
    """Return the lengths in frames that training draws from: all, if `n_lengths` is None.

    A number at equal steps suits compilers that compile every length anew.
    """
    if n_lengths is None:
        return range(shortest, longest + 1)
    return sorted(set(test_time_lengths(shortest, longest, n_lengths)))
