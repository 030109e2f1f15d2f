"""Adam in one operation for each variable."""

import keras


class Adam(keras.optimizers.Adam):
    """Keras' Adam by TensorFlow's fused operation.

    Keras updates a variable in thirty operations. With 174 variables they are half of those of a
    training step, and half of the time that TensorFlow takes to trace it. Values and optimizer
    variables are the same. Other backends use Keras' own code.
    """

    def update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        learning_rate: keras.KerasTensor,
    ) -> None:
        """Update a variable and its two moments."""
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index = self._get_variable_index(variable)
        beta_1, beta_2, epsilon = (
            tf.constant(x, variable.dtype) for x in (self.beta_1, self.beta_2, self.epsilon)
        )
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            # Keras hands over TensorFlow's variable, but keeps its own for the moments.
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )
