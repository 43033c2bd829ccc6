"""The training step of mnist_step.yaml, as one writes it in plain TensorFlow."""

import tensorflow as tf


def train_step(model, optimizer, loss, batch):
    """One step on one replica.

    Args:
        model: the keras.Model of the spec.
        optimizer: that of the spec; it sums gradients over the replicas.
        loss: a function of (targets, outputs): the mean over the global batch, or this replica's share of it.
        batch: (images, labels): float32 [samples, 28, 28, 1] and int64 [samples].

    Returns:
        The loss, and the outputs that the metrics of the spec are counted of.
    """
    images, labels = batch
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        value = loss(labels, logits)
    gradients = tape.gradient(value, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return {"loss": value, "outputs": logits}
