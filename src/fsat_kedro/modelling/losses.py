"""A loss for clips of which some have labels that nobody verified.

Axes: n clips, c classes.
"""

from collections.abc import Callable

import keras
from keras import ops


class PartlyRobustCrossentropy(keras.losses.Loss):
    """Cross-entropy of verified labels, generalised cross-entropy of the others.

    Of a clip with the probability p of its label, the latter is (1 − p^q) / q: between −ln p for
    q → 0 and the mean absolute error for q = 1 (Zhang, Sabuncu: Generalized Cross Entropy Loss for
    Training Deep Neural Networks with Noisy Labels, 2018).

    Args:
        q: above 0.
    """

    def __init__(self, q: float) -> None:
        super().__init__(name="partly_robust_crossentropy")
        self._q = q

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Compute the loss of each clip, (n,).

        Args:
            y_true: (n, 2 c): the targets of verified labels, then those of the others. A clip has
                both if it is mixed of two.
            y_pred: probabilities (n, c).
        """
        verified, others = ops.split(y_true, 2, axis=-1)
        p = ops.clip(y_pred, keras.config.epsilon(), 1)
        losses = others * (1 - p**self._q) / self._q - verified * ops.log(p)
        return ops.sum(losses, axis=-1)


def metric_of_both(
    function: Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor], name: str
) -> keras.metrics.Metric:
    """Return the mean of a function of targets and predictions, for targets of the loss above."""

    def of_both(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        verified, others = ops.split(y_true, 2, axis=-1)
        return function(verified + others, y_pred)

    return keras.metrics.MeanMetricWrapper(of_both, name=name)
