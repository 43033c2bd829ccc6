"""Labels that are smoothed, of class numbers: the loss by hand (Szegedy et al., arXiv:1512.00567, section 7)."""

import math

import numpy as np
import pytest
from training.test_resume import lines

from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import OutputSpec
from mltool.spec.task import task_of
from mltool.training.loops.head import Head
from mltool.training.train import train


def losses(loss: KerasObject, targets: list[int], outputs: list[list[float]]) -> np.ndarray:
    import tensorflow as tf

    output = OutputSpec.model_construct(loss=loss, metrics=())
    head = Head("", output, task=task_of(loss), shape=(len(outputs[0]),))
    return head.sample_losses(tf.constant(targets, tf.int64), tf.constant(outputs)).numpy()


def test_classes_give_a_share_to_all_classes():
    # softmax([log 6, log 3, log 1]) = [0.6, 0.3, 0.1]; with 0.3 smoothed, class 1 is [0.1, 0.8, 0.1].
    logits = [[math.log(6.0), math.log(3.0), 0.0]]
    loss = KerasObject("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.3})
    by_hand = -(0.1 * math.log(0.6) + 0.8 * math.log(0.3) + 0.1 * math.log(0.1))
    assert losses(loss, [1], logits) == pytest.approx([by_hand])
    without = KerasObject("CategoricalCrossentropy", {"from_logits": True})
    assert losses(without, [1], logits) == pytest.approx([-math.log(0.3)])


def test_two_classes_move_towards_the_half():
    # sigmoid(log 4) = 0.8; with 0.2 smoothed, 1 is 0.9 and 0 is 0.1.
    loss = KerasObject("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2})
    by_hand = [-(share * math.log(0.8) + (1 - share) * math.log(0.2)) for share in (0.9, 0.1)]
    assert losses(loss, [1, 0], [[math.log(4.0)]] * 2) == pytest.approx(by_hand)


def test_a_training_on_class_numbers_smooths_them(features, make_run):
    features["train"]["optimizer"] = {"SGD": {"learning_rate": 0.0}}
    found = {}
    for share in (0.0, 0.3, 0.6):
        features["train"]["loss"] = {"CategoricalCrossentropy": {"from_logits": True, "label_smoothing": share}}
        run = make_run(features, f"smoothed-{share}")
        train(run)
        found[share] = lines(run)[0]
    # Nothing is learned, and the loss is linear in the targets.
    assert found[0.3]["loss"] == pytest.approx((found[0.0]["loss"] + found[0.6]["loss"]) / 2, rel=1e-5)
    assert abs(found[0.6]["val_loss"] - found[0.0]["val_loss"]) > 1e-3
    assert len({line["accuracy"] for line in found.values()}) == 1
