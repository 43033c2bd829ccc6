"""The mean of weights of several epochs, with batch statistics that fit it."""

import numpy as np
from training.test_loop import convolutional

from mltool.training.optimizing.weight_average import WeightAverage, renew_batch_statistics

NUMBERS = np.random.default_rng(4)


def test_the_average_is_the_mean_of_what_it_was_given():
    model = convolutional()
    average, given = WeightAverage(model.trainable_variables), []
    for _ in range(3):
        for weight in model.trainable_variables:
            weight.assign(NUMBERS.normal(size=weight.shape))
        given.append([np.asarray(weight) for weight in model.trainable_variables])
        average.add()
    assert average.epochs == 3
    average.put()
    for weight, *values in zip(model.trainable_variables, *given, strict=True):
        np.testing.assert_allclose(np.asarray(weight), np.mean(values, axis=0), atol=1e-6)


def test_batch_statistics_are_the_mean_over_the_batches():
    model = convolutional()
    norm, convolution = model.get_layer("norm"), model.get_layer("conv")
    norm.moving_mean.assign([7.0, 7.0, 7.0])
    batches = [NUMBERS.normal(size=(size, 6, 6, 1)).astype(np.float32) for size in (8, 8, 3)]
    seen = [np.asarray(convolution(batch)) for batch in batches]
    renew_batch_statistics(model, [({"x": batch}, None, None) for batch in batches])
    axes = (0, 1, 2)
    means = np.mean([one.mean(axis=axes) for one in seen], axis=0)
    variances = np.mean([one.var(axis=axes) for one in seen], axis=0)
    np.testing.assert_allclose(np.asarray(norm.moving_mean), means, atol=1e-5)
    np.testing.assert_allclose(np.asarray(norm.moving_variance), variances, atol=1e-5)
    assert norm.momentum == 0.99


def test_what_the_first_phase_freezes_is_in_the_average(features, make_run):
    """The means of a phase of two epochs; its weights are those that are trained on to the same epochs."""
    from training.test_resume import weights

    from mltool.training.train import train

    features["model"]["layers"] = [{"Dense": {"units": 5, "name": "body"}}, {"Dense": {"units": 3, "name": "head"}}]
    optimizer = features["train"].pop("optimizer")
    del features["train"]["epochs"]
    lasts = []
    for epochs in (1, 2):
        phases = [{"epochs": 1, "freeze": ["body"]}, {"epochs": epochs}]
        features["train"] |= {"keep": "last", "phases": [phase | {"optimizer": optimizer} for phase in phases]}
        last = make_run(features, f"last{epochs}")
        train(last)
        lasts.append(weights(last))
    run = make_run({**features, "train": {**features["train"], "keep": "average", "average_from": 2}})
    train(run)
    for mean, *ends in zip(weights(run), *lasts, strict=True):
        np.testing.assert_allclose(mean, np.mean(ends, axis=0), atol=1e-6)
    assert run.manifest["average"]["epochs"] == 2


def test_a_run_keeps_the_mean_of_its_last_epochs_and_a_cut_changes_nothing(hard, make_run, monkeypatch):
    from training.test_resume import check_interrupt, weights

    from mltool.training.train import train

    hard["train"] |= {"epochs": 4, "keep": "average", "average_from": 3, "callbacks": []}
    uncut, run = make_run(hard, "uncut"), make_run(hard, "run")
    lasts = {}
    for epochs in (3, 4):  # the weights at the ends of epochs 3 and 4
        hard["train"] = {name: value for name, value in hard["train"].items() if name != "average_from"}
        last = make_run({**hard, "train": {**hard["train"], "epochs": epochs, "keep": "last"}}, f"last{epochs}")
        train(last)
        lasts[epochs] = weights(last)
    result = train(uncut)
    for mean, *ends in zip(weights(uncut), *lasts.values(), strict=True):
        if mean.shape != (4,):  # batch statistics are counted anew, and four of the weights are beside them
            np.testing.assert_allclose(mean, np.mean(ends, axis=0), atol=1e-6)
    assert uncut.manifest["average"]["epochs"] == 2
    assert result.metrics["val_loss"] == uncut.manifest["average"]["val_loss"]
    check_interrupt(run, uncut, monkeypatch, 16, "epoch 4, step 2 of 4")
    assert run.manifest["average"] == uncut.manifest["average"]
