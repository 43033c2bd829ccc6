"""Layers, losses and metrics that tests name in `python:`; a copy of this file lies beside their specs."""

import keras
import tensorflow as tf


class Scale(keras.layers.Layer):
    """Has no get_config and takes no name: neither is needed."""

    def __init__(self, factor, *, start="ones"):
        super().__init__()
        self.factor, self.start = factor, [start]

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), initializer=self.start[0], name="kernel")

    def call(self, inputs):
        return inputs * self.kernel * self.factor


class Gate(keras.layers.Layer):
    """Takes two tensors, each as an argument of its own."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(4)

    def call(self, values, gate, training=False):
        return self.inner(values) * keras.ops.sigmoid(gate)


class Mean(keras.layers.Layer):
    """Takes a list; drops nothing but while training."""

    def call(self, inputs, training=False):
        mean = sum(inputs) / len(inputs)
        return mean * 0.0 if training else mean


class Center(keras.layers.Layer):
    """Learns from data before training, as Keras' preprocessing layers do."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, name="mean")

    def adapt(self, data):
        total = count = 0.0
        for batch in data:
            total, count = total + float(tf.reduce_sum(batch)), count + float(tf.size(batch))
        self.build(None)
        self.built = True
        self.mean.assign(total / count)

    def call(self, inputs):
        return inputs - self.mean


def dense(units):
    return keras.layers.Dense(units, activation="relu")


def no_layer():
    return 3


def the_class():
    return Mean


def raises():
    raise RuntimeError("no luck")


class Fails(keras.layers.Layer):
    def call(self, inputs):
        raise OSError("no disk")


class Two(keras.layers.Layer):
    def call(self, inputs):
        return inputs, inputs


class EagerOnly(keras.layers.Layer):
    def call(self, inputs):
        return tf.constant(inputs.numpy())


class Rows(keras.layers.Layer):
    """Loses samples."""

    def call(self, inputs):
        return inputs[:1]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class Loose(keras.layers.Layer):
    """Holds a variable that Keras does not see."""

    def __init__(self):
        super().__init__()
        variable = tf.Variable(1.0, name="mine")
        self.hidden = lambda: variable

    def call(self, inputs):
        return inputs * self.hidden()


class NoLayer:
    pass


# Losses


class Huberlike(keras.losses.Loss):
    def __init__(self, delta=1.0):
        super().__init__()
        self.delta = delta

    def call(self, y_true, y_pred):
        error = keras.ops.abs(y_true - y_pred)
        return keras.ops.mean(keras.ops.where(error < self.delta, error**2, error), axis=-1)


def weighted(y_true, y_pred, weight=1.0):
    """Crossentropy of class numbers and logits."""
    return weight * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def binary(y_true, y_pred):
    return tf.square(tf.reshape(y_true - y_pred, [-1]))


def one_number(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred))


def one_an_output(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred), axis=0)


def no_tensor(y_true, y_pred):
    return [1.0]


def without_gradient(y_true, y_pred):
    return tf.reduce_mean(tf.round(y_pred) * 0.0 + tf.cast(tf.stop_gradient(y_pred), tf.float32), axis=-1)


def needs_eager(y_true, y_pred):
    return tf.reduce_mean(y_pred * float(tf.reduce_sum(y_pred).numpy() + 1), axis=-1)


def breaks(y_true, y_pred):
    raise KeyError("nothing there")


# Metrics


class Hits(keras.metrics.Metric):
    """Answers that are the class, counted: no mean of samples."""

    def __init__(self, step=1.0):
        super().__init__()
        self.step = step
        self.count = self.add_weight(shape=(), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        right = tf.equal(tf.argmax(y_pred, axis=-1), tf.cast(y_true, tf.int64))
        self.count.assign_add(self.step * tf.reduce_sum(tf.cast(right, tf.float32)))

    def result(self):
        return self.count


def right(y_true, y_pred):
    return tf.cast(tf.equal(tf.argmax(y_pred, axis=-1), tf.cast(y_true, tf.int64)), tf.float32)


def largest(y_true, y_pred):
    return tf.reduce_max(y_pred, axis=-1)


def off_by(y_true, y_pred, power=1):
    return tf.reduce_mean(tf.abs(y_true - y_pred) ** power, axis=-1)


def one_mean(y_true, y_pred):
    return tf.reduce_mean(y_pred)
