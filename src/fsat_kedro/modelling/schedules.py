"""Learning rates of the phases, from nothing but the steps and losses so far.

Whoever goes on after an interruption finds the same rates, because none of them is remembered.
"""

from collections.abc import Sequence

from fsat_kedro.parameters import Plateau


def triangular_rate(step: int, half_cycle: int, minimum: float, maximum: float) -> float:
    """Cyclic learning rate (Smith, 2017): up from the minimum over a half cycle, and down again.

    Args:
        step: batches since the phase began.
        half_cycle: batches from the minimum to the maximum.
        minimum: the lowest rate.
        maximum: the highest.
    """
    distance_from_peak = abs(step / half_cycle % 2 - 1)
    return minimum + (maximum - minimum) * (1 - distance_from_peak)


def plateau_rate(losses: Sequence[float], first: float, plateau: Plateau) -> float:
    """Rate of the next epoch: lowered after every `patience` epochs in a row without gain.

    Args:
        losses: validation loss of each epoch of the phase so far.
        first: the rate that the phase begins with.
        plateau: what counts as gain, and how the rate falls.
    """
    return first * plateau.factor ** sum(
        wait % plateau.patience == 0 for wait in _epochs_without_gain(losses, plateau) if wait
    )


def has_stalled(losses: Sequence[float], plateau: Plateau) -> bool:
    """Whether a phase with these validation losses ends: `stop_after` epochs without gain."""
    waits = _epochs_without_gain(losses, plateau)
    return len(waits) > 1 and waits[-1] >= plateau.stop_after


def _epochs_without_gain(losses: Sequence[float], plateau: Plateau) -> list[int]:
    """After each epoch, how many there were since the last loss lower by `min_delta`."""
    waits, lowest = [], float("inf")
    for loss in losses:
        if loss < lowest - plateau.min_delta:
            lowest = loss
            waits.append(0)
        else:
            waits.append(waits[-1] + 1 if waits else 1)
    return waits
