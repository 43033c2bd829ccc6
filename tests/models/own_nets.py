"""Models that tests name in `python:`; a copy of this file lies beside their specs."""

import random

import keras
import tensorflow as tf


def functional(width=8, classes=10):
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="stem")(inputs)
    hidden = keras.layers.Dense(width, activation="relu")(keras.layers.Flatten()(hidden))
    return keras.Model(inputs, keras.layers.Dense(classes)(hidden))


def sequential(width=8):
    layers = keras.layers
    return keras.Sequential(
        [layers.Flatten(), layers.Dense(width, activation="relu"), layers.Dropout(0.2), layers.Dense(10)]
    )


def with_my_activation():
    def mine(x):
        return keras.ops.maximum(x, 0.0)

    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8, activation=mine), keras.layers.Dense(10)])


def compiled():
    model = functional()
    model.compile("adam", "mse")
    return model


class Net(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.many = [keras.layers.Dense(width, activation="relu") for _ in range(2)]
        self.drop = keras.layers.Dropout(0.2)
        self.out = keras.layers.Dense(10)

    def call(self, x, training=False):
        x = keras.ops.reshape(x, (-1, 64))
        for layer in self.many:
            x = layer(x)
        return self.out(self.drop(self.norm(x, training=training), training=training))


def subclassed(width=8):
    return Net(width)


class Module(tf.Module):
    """Makes some of its variables when it is first called, and counts its training steps."""

    def __init__(self, width):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal((3, 3, 1, 4), stddev=0.3), name="kernel")
        self.steps = tf.Variable(0, trainable=False, name="steps")
        self.width, self.dense = width, None

    @tf.Module.with_name_scope
    def __call__(self, x, training=False):
        x = tf.nn.relu(tf.nn.conv2d(x, self.kernel, 2, "VALID"))
        x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
        if self.dense is None:
            self.dense = [
                tf.Variable(tf.random.normal((x.shape[1], self.width), stddev=0.2), name="w"),
                tf.Variable(tf.zeros(self.width), name="b"),
                tf.Variable(tf.random.normal((self.width, 10), stddev=0.2), name="w"),
                tf.Variable(tf.zeros(10), name="b"),
            ]
        if training:
            self.steps.assign_add(1)
        w1, b1, w2, b2 = self.dense
        return tf.nn.relu(x @ w1 + b1) @ w2 + b2


def module(width=8):
    print("a print of the user's")
    return Module(width)


class Decorated(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.random.normal((64, 10), stddev=0.1))
        self.noise = tf.random.Generator.from_seed(3)

    @tf.function
    def __call__(self, x, training):
        x = tf.reshape(x, [-1, 64])
        if training:
            x += self.noise.normal(tf.shape(x), stddev=0.01)
        if tf.reduce_max(x) > 1000.0:  # becomes part of the graph
            x = x / 1000.0
        return x @ self.w


def decorated():
    return Decorated()


def two_functional(units=10):
    image, meta = keras.Input((4, 4, 1), name="image"), keras.Input((3,), name="meta")
    both = keras.layers.Concatenate()([keras.layers.Flatten()(image), meta])
    return keras.Model([meta, image], keras.layers.Dense(units)(both))


class TwoNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(10)

    def call(self, inputs):
        return self.out(keras.ops.concatenate([keras.ops.reshape(inputs["image"], (-1, 16)), inputs["meta"]], axis=1))


def two_subclassed():
    return TwoNet()


class TwoModule(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.random.normal((19, 10), stddev=0.2))

    def __call__(self, inputs):
        return tf.concat([tf.reshape(inputs["image"], [-1, 16]), inputs["meta"]], axis=1) @ self.w


def two_module():
    return TwoModule()


# What users do wrong.


def needs(depth):
    return functional()


def keywords(**keywords):
    return functional(**keywords)


def fails():
    raise RuntimeError("no luck")


def leaves():
    raise SystemExit(0)


def nothing():
    return None


def a_class():
    return Net


def a_layer():
    return keras.layers.Dense(10)


def not_callable():
    return tf.Module()


def keras_in_module():
    module = Decorated()
    module.layer = keras.layers.Dense(10)
    return module


def for_other_images():
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def integers():
    return keras.Sequential([keras.Input((8, 8, 1), dtype="int32"), keras.layers.Flatten(), keras.layers.Dense(10)])


def two_outputs():
    model = functional()
    return keras.Model(model.input, [model.output, model.layers[-2].output])


def of_module(call, variable=True):
    class Wrong(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(tf.ones((64, 10)), trainable=variable)

        def __call__(self, x):
            return call(self, tf.reshape(x, [-1, 64]))

    return Wrong()


def gives_numpy():
    return of_module(lambda self, x: x.numpy() @ self.w)


def gives_integers():
    return of_module(lambda self, x: tf.cast(x @ self.w, tf.int32))


def wrong_matrix():
    return of_module(lambda self, x: tf.transpose(x) @ self.w)


def no_batch():
    return of_module(lambda self, x: tf.reshape(x @ self.w, [-1, 5]))


def no_gradient():
    return of_module(lambda self, x: tf.stop_gradient(x @ self.w))


def nothing_to_train():
    return of_module(lambda self, x: x @ self.w, variable=False)


class Loose(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(64)
        self.w = tf.Variable(tf.random.normal((64, 10)), name="mine")  # which Keras does not see

    def call(self, x):
        return self.dense(keras.ops.reshape(x, (-1, 64))) @ self.w


def loose_variable():
    return Loose()


def stateful_random():
    return of_module(lambda self, x: tf.nn.dropout(x, 0.5) @ self.w)


def another_each_time():
    return of_module_with(random.randrange(5, 500))


def of_module_with(width):
    class Growing(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(tf.random.normal((64, width)))
            self.v = tf.Variable(tf.random.normal((width, 10)))

        def __call__(self, x):
            return tf.reshape(x, [-1, 64]) @ self.w @ self.v

    return Growing()
