"""Learning rates of the phases, as pure functions of the steps and losses so far.

They keep no state, so a stage that resumes after an interruption gets the same rates.
"""

import math
from collections.abc import Sequence

from fsat_kedro.parameters import EarlyStopping, Plateau


def triangular_rate(step: int, half_cycle: int, minimum: float, maximum: float) -> float:
    """Return a cyclic learning rate (Smith, 2017), which rises for a half cycle and then falls.

    Args:
        step: batches since the phase began.
        half_cycle: batches from the minimum to the maximum.
        minimum: the lowest rate.
        maximum: the highest rate.
    """
    distance_from_peak = abs(step / half_cycle % 2 - 1)
    return minimum + (maximum - minimum) * (1 - distance_from_peak)


def cosine_rate(step: int, *, warm_up: int, n_steps: int, maximum: float) -> float:
    """Return a rate that rises linearly and then falls as half a cosine (Loshchilov, 2017).

    Args:
        step: batches since the phase began.
        warm_up: batches in which it rises; the last of them has the maximum.
        n_steps: batches of the phase.
        maximum: the highest rate.
    """
    if step < warm_up:
        return maximum * (step + 1) / warm_up
    return maximum * (1 + math.cos(math.pi * (step - warm_up) / (n_steps - warm_up))) / 2


def plateau_rate(losses: Sequence[float], initial_rate: float, plateau: Plateau) -> float:
    """Return the rate of the next epoch, reduced after every `patience` epochs without improvement.

    Args:
        losses: validation loss of each epoch of the phase so far.
        initial_rate: of the phase.
        plateau: which loss counts as an improvement, and by which factor the rate falls.
    """
    return initial_rate * plateau.factor ** sum(
        wait % plateau.patience == 0
        for wait in _epochs_without_improvement(losses, plateau.min_delta)
        if wait
    )


def has_stalled(losses: Sequence[float], early_stopping: EarlyStopping) -> bool:
    """Return whether a phase stops early: its last `patience` epochs had no improvement."""
    waits = _epochs_without_improvement(losses, early_stopping.min_delta)
    return len(waits) > 1 and waits[-1] >= early_stopping.patience


def _epochs_without_improvement(losses: Sequence[float], min_delta: float) -> list[int]:
    """Count, after each epoch, the epochs since the loss last fell by more than `min_delta`."""
    waits: list[int] = []
    lowest = float("inf")
    for loss in losses:
        if loss < lowest - min_delta:
            lowest = loss
            waits.append(0)
        else:
            waits.append(waits[-1] + 1 if waits else 1)
    return waits
