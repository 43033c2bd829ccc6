"""What each section takes, what must hold between keys and sections, and that messages say how to mend it."""

import pytest

from mltool.spec.catalogue import KerasObject
from mltool.spec.limits import Drop
from mltool.spec.load import dump_spec, load_spec
from mltool.spec.messages import known_keys

LOGITS = {"SparseCategoricalCrossentropy": {"from_logits": True}}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        pytest.param("data.source.dataset", "hf:mnist", "known: digits", id="hf"),
        pytest.param("data.source.dataset", "imdb", "known: digits", id="texts of keras.datasets"),
        pytest.param("export.signatures", ["a"], "the only value here is ['serving_default']", id="signatures"),
        pytest.param("convert", [{"target": "micro"}], "leave this key out", id="target"),
        pytest.param("convert", [{"preprocess": "outside"}], "leave it out", id="preprocess outside"),
        pytest.param("limits.max_arena", "64 KB", "leave this key out", id="arena"),
    ],
)
def test_what_is_not_built_yet_is_refused_and_said(key, value, expected, bench):
    found = bench.refused({key: value})
    assert len(found) == 1, found
    assert "not in this version (got " in found[0]
    assert expected in found[0]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"train.strategy": "auto", "train.precision": "float32", "export": {"warmup": 32}}, id="said"),
        pytest.param({"include": None, "data.source.test_path": None}, id="null"),
    ],
)
def test_what_is_not_built_yet_takes_its_default(changes, bench):
    assert bench.load(changes) == bench.load()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *(("nam", "name"), ("data.sorce", "source"), ("data.source.datset", "dataset"), ("data.split.tests", "test")),
        *(
            ("model.layer", "layers"),
            ("train.epoch", "epochs"),
            ("export.warm_up", "warmup"),
            ("limits.maxdrop", "max_drop"),
        ),
    ],
)
def test_an_unknown_key_of_any_section_gets_the_one_that_was_meant(key, meant, bench):
    assert bench.refused({key: 1}) == [f"{key}: unknown key; did you mean {meant!r}?"]


def test_an_unknown_key_below_a_list_or_a_map_of_names_gets_the_one_that_was_meant(bench):
    assert bench.refused({"convert": [{"quantise": "int8"}]}) == [
        "convert.0.quantise: unknown key; did you mean 'quantize'?"
    ]
    changes = {"convert": [{"limits": {"mn": 0.5}}]}
    assert bench.refused(changes) == ["convert.0.limits.mn: unknown key; did you mean 'min'?"]
    changes = {"data.source": {"path": "a.npz"}, "data.inputs": {"a": {"aray": "x"}}}
    assert bench.refused(changes) == ["data.inputs.a.aray: unknown key; did you mean 'array'?"]


def test_a_key_like_no_other_gets_the_keys_that_there_are(bench):
    assert bench.refused({"serve.port": 80}) == ["serve.port: unknown key; this section has no keys"]
    assert "known keys: source, inputs" in bench.refused({"data.zzz": 1})[0]


def test_keys_are_known_in_every_section():
    assert known_keys(("data", "inputs", "image")) == ["array", "column"]
    assert known_keys(("convert", 0, "limits"))[:2] == ["metric", "min"]


# Values


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"train.epochs": "3"}, "must be a whole number (got '3'); remove the quotes", id="a number in quotes"
        ),
        pytest.param({"train.epochs": True}, "must be a whole number (got true)", id="true for a number"),
        pytest.param({"train.epochs": 2.0}, "must be a whole number (got 2.0)", id="a float for a whole number"),
        pytest.param({"version": 2}, "must be 1 (got 2)", id="a version to come"),
        pytest.param({"name": "a b"}, "must match", id="a name with a space"),
        pytest.param({"name": 3}, "must be text (got 3)", id="a number for a name"),
        pytest.param(
            {"data.split.validation": "0.1"}, "must be a number (got '0.1'); remove the quotes", id="a share in quotes"
        ),
        pytest.param({"data.split.test": 0}, "must be greater than 0 (got 0)", id="no test set"),
        pytest.param(
            {"train.keep": "bset"},
            "must be 'best', 'last' or 'average' (got 'bset'); did you mean 'best'?",
            id="a choice",
        ),
        pytest.param(
            {"train.metrics": "accuracy"}, "must be a list (got 'accuracy'); write [accuracy]", id="no list of metrics"
        ),
        pytest.param(
            {"convert": {"quantize": "int8"}}, "must be a list (got a map); write its items with -", id="no list"
        ),
        pytest.param({"convert": "int8"}, "must be a list (got 'int8'); write [int8]", id="a word for a list"),
        pytest.param({"data": []}, "must be a map of keys (got [])", id="a list for a section"),
        pytest.param(
            {"data.source": {"path": "a.csv", "color": "gray"}},
            "color: is a key of images, tfrecord, huggingface, tfds, and the source is table; leave it out",
            id="a key of another kind",
        ),
        pytest.param(
            {"data.source": {"path": "a.csv", "kind": "images"}},
            "a.csv holds no images; leave it out, or kind: table",
            id="a kind that the ending denies",
        ),
        pytest.param(
            {"data.source": {"path": "a", "label": "("}},
            "is no regular expression: missing ), unterminated",
            id="pattern",
        ),
        pytest.param({"data.source": {"path": "a", "classes": ["x"]}}, "must be a list of two labels", id="one class"),
        pytest.param({"data.source": {"path": "a", "labels": []}}, "must be a map of labels (got [])", id="labels"),
        pytest.param({"data.split.by": "column"}, "by: column and column: NAME go together", id="no column"),
        pytest.param({"data.split.by": "file"}, "needs data.source.test_path; name the file", id="no file"),
        pytest.param({"train.class_weights": {"a": -1}}, "must be balanced, or a map from label", id="class weights"),
        pytest.param({"data.source.path": ""}, "must be a path (got '')", id="an empty path"),
        pytest.param(
            {"data.source": {"target": "y"}}, "says no source; write dataset: digits, or path", id="no source"
        ),
        pytest.param(
            {"data.source.dataset": "minst"}, "unknown data set 'minst'; did you mean 'mnist'?", id="data set"
        ),
        pytest.param(
            {"data.augment": ["Flatten"]},
            "'Flatten' is not an augmentation; use Keras' Random... layers, RandAugment, Solarization, RandomNoise, "
            "RandomShift, SpecAugment, CutMix or MixUp",
            id="augment",
        ),
        pytest.param(
            {"data.augment": ["AutoContrast"]},
            "'AutoContrast' is not an augmentation; write it under model.preprocess",
            id="an augmentation that draws nothing",
        ),
        pytest.param(
            {"data.augment": [{"Dropout": {"rate": 0.1}}]},
            "'Dropout' is not an augmentation; write it under model.layers",
            id="an augmentation of the model",
        ),
        pytest.param(
            {"data.augment": ["AugMix"]},
            "AugMix cannot be made repeatable: Keras draws its chains from Python's own generator; use RandAugment",
            id="an augmentation that cannot be repeated",
        ),
        pytest.param(
            {"data.augment": ["MixUp", "CutMix", "RandomFlip"]},
            "data.augment.2: RandomFlip sees samples, and CutMix before it has mixed them; write CutMix after it",
            id="a flip after a mixture",
        ),
        pytest.param(
            {"data.augment": [{"MixUp": {"alpha": 0}}]},
            "data.augment.0.MixUp.alpha: must be greater than 0 (got 0); write 0.2",
            id="a mixture of nothing",
        ),
        pytest.param(
            {"data.augment": [{"SpecAugment": {"time_factor": 1.5}}]},
            "time_factor: must be a number greater than 0 and of at most 1",
            id="a mask beyond the end",
        ),
        pytest.param(
            {"data.augment": ["RandomNois"]}, "unknown layer 'RandomNois'; did you mean 'RandomNoise'?", id="a noise"
        ),
        pytest.param(
            {"data.augment": [{"RandomShift": {"factor": 2}}]},
            "must be a number greater than 0 and of at most 1",
            id="shift",
        ),
        pytest.param(
            {"model.layers": [{"RandomNoise": {"factor": 0.1}}, {"Dense": {"units": 2}}]},
            "'RandomNoise' is an augmentation, and none of the model's layers; write it under data.augment",
            id="an augmentation in the model",
        ),
        pytest.param(
            {"convert": [{"batch": 0}]}, "must be a whole number above 0 or 'dynamic' (got 0)", id="batch of none"
        ),
        pytest.param({"convert": [{"batch": True}]}, "above 0 or 'dynamic' (got true)", id="batch of true"),
        pytest.param(
            {"convert": [{"quantize": "int8", "representative": 7}]}, "must be at least 8 (got 7)", id="few samples"
        ),
        pytest.param({"convert": [{"name": "../a"}]}, "must match", id="a name that leaves the folder"),
        pytest.param(
            {"limits.max_size": "20 XB"},
            "must be a size above 0 (got '20 XB'); write a number and one of B, KB",
            id="unit",
        ),
        pytest.param({"limits.max_size": 0}, "must be a size above 0 (got 0)", id="no size"),
        pytest.param({"limits.max_size": True}, "must be a size above 0 (got true)", id="a boolean for a size"),
        pytest.param({"limits.max_p90_latency": "5 parsec"}, "must be a time above 0", id="unit of time"),
        pytest.param({"limits.max_drop": "-1%"}, "must be a number or a percentage, at least 0 (got '-1%')", id="drop"),
        pytest.param({"limits.max_drop": float("inf")}, "at least 0 (got inf)", id="an infinite drop"),
        pytest.param({"model.layers": []}, "must have at least one layer (got [])", id="no layers"),
        pytest.param({"model.layers": "Flatten"}, "must be a list of layers (got 'Flatten')", id="a layer for a list"),
        pytest.param({"data.inputs": {}}, "must not be empty", id="no inputs"),
        pytest.param({"data.inputs": {"class": {}}}, "'class' cannot be the name of an input", id="a word of Python"),
        pytest.param({"data.inputs": {"a b": {}}}, "'a b' cannot be the name of an input", id="an input with a space"),
        pytest.param(
            {"train.loss": {"mse": {"reduction": "sum"}}, "train.metrics": ["mae"]},
            "must be 'sum_over_batch_size' (got 'sum')",
            id="reduction",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_passed_and_expected(changes, expected, bench):
    found = bench.refused(changes)
    assert len(found) == 1, found
    assert expected in found[0]


@pytest.mark.parametrize("word", ["on", "yes", "off", "No"])
def test_a_boolean_of_yaml_1_1_gets_a_hint(word, bench):
    (found,) = bench.refused({"train.callbacks": [{"EarlyStopping": {"restore_best_weights": word}}]})
    assert f"YAML 1.2 reads `{word}` as text; write true or false" in found


def test_a_number_with_an_exponent_and_no_dot_is_a_number(bench):
    path = bench.good()
    path.write_text(path.read_text().replace("train:\n", "train:\n  optimizer: {Adam: {learning_rate: 2e-5}}\n"))
    from mltool.spec.load import load_spec

    assert load_spec(path).train.optimizer == KerasObject("Adam", {"learning_rate": 2e-5})


@pytest.mark.parametrize(
    ("written", "size"),
    [(100, 100), ("100", 100), ("20 KB", 20_000), ("20kb", 20_000), (" 1.5 MiB ", 1.5 * 1024**2), (".5 MB", 500_000)],
)
def test_a_size_has_a_unit(written, size, bench):
    assert bench.load({"limits.max_size": written}).limits.max_size == size


def test_a_latency_is_in_milliseconds(bench):
    assert bench.load({"limits.max_p90_latency": "500 us"}).limits.max_p90_latency == 0.5


@pytest.mark.parametrize(
    ("written", "drop", "allowed"),
    [
        (0.005, Drop(0.005, relative=False), 0.005),
        ("0.5%", Drop(0.005, relative=True), 0.0045),
        (0, Drop(0, relative=False), 0),
    ],
)
def test_a_drop_is_in_units_of_the_metric_or_relative(written, drop, allowed, bench):
    found = bench.load({"limits.max_drop": written}).limits.max_drop
    assert found == drop
    assert found.allowed(0.9) == pytest.approx(allowed)


# Between keys


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"data.source.dataset": "mnist", "data.split.test": 0.2},
            "data.split.test: the data set 'mnist' brings its own test set; leave split.test out",
            id="a second test set",
        ),
        pytest.param(
            {"convert": [{"quantize": "float16", "io": "int8"}]},
            "convert.0.io: int8 needs quantize: int8 or qat or auto (got quantize: float16)",
            id="integers without int8",
        ),
        pytest.param(
            {"convert": [{"quantize": "dynamic", "keep_float": ["top"]}]},
            "convert.0.keep_float: needs quantize: int8, int16x8, qat, auto (got quantize: dynamic",
            id="keep_float without int8",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8-io", "keep_float": ["top"]}]},
            "needs io: float32 (got quantize: int8, io: int8)",
            id="keep_float with integers",
        ),
        pytest.param(
            {"convert": [{"quantize": "none", "granularity": "tensor"}]},
            "convert.0.granularity: needs quantize: int8, qat, auto, int4, weight-only, int16x8 (got quantize: none",
            id="granularity without weights",
        ),
        pytest.param(
            {"convert": [{"quantize": "int4", "block_size": 32, "granularity": "tensor"}]},
            "convert.0.block_size: contradicts granularity: tensor; leave one of them out",
            id="blocks and whole tensors",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8", "layers": {"tpo": "float32"}}]},
            "convert.0.layers.tpo: no layer matches 'tpo'; did you mean 'top'?",
            id="a pattern that matches nothing",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8", "layers": {"t.*": "float32", "top": "int16x8"}}]},
            "convert.0.layers.top: does nothing: 't.*' before it matches first; write it above 't.*'",
            id="a pattern behind another that takes all it matches",
        ),
        pytest.param(
            {"model.preprocess": ["StringLookup"], "convert": [{"quantize": "qat"}]},
            "convert.0.quantize: qat cannot rebuild StringLookup ('string_lookup'); take another scheme",
            id="training on with text",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8", "keep_float": ["top"], "layers": {"top": "int16x8"}}]},
            "convert.0.layers.top: does nothing: keep_float keeps the layer in float; leave one of the two out",
            id="layers that are kept in float",
        ),
        pytest.param(
            {"limits": {"min": 0.9, "max": 0.1}},
            "limits: min must be at most max (got 0.9 and 0.1); no model keeps both",
            id="limits that contradict one another",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8", "layers": {"top": "int2"}}]},
            "convert.0.layers.top: must be a scheme of a layer (got 'int2'); did you mean 'int8'?",
            id="a scheme of a layer that is none",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8", "layers": {"top": "int16x8"}, "name": "int8"}]},
            "convert.0.name: 'int8' is the name of another scheme than int8-mixed; give it another name",
            id="a mixture called int8",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8-tensor", "granularity": "channel"}]},
            "contradicts quantize: int8-tensor (got 'channel'); write quantize: int8, granularity: channel",
            id="a short name and its contrary",
        ),
        pytest.param(
            {"convert": [{"quantize": "dynamic", "calibration": "random"}]},
            "convert.0.calibration: is for schemes that are calibrated (got quantize: dynamic)",
            id="calibration of nothing",
        ),
        pytest.param(
            {"convert": [{"quantize": "auto", "calibration": "random"}]},
            "convert.0.calibration: a search measures accuracy, which random calibration leaves unknown",
            id="a search by random numbers",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8"}, {"quantize": "int8"}]},
            "convert.1.name: the name 'int8' is used twice; give one a name: of its own",
            id="a file twice",
        ),
        pytest.param(
            {"convert": [{"quantize": "int8", "keep_float": ["tpo"]}]},
            "convert.0.keep_float.0: no layer is called 'tpo'; did you mean 'top'?",
            id="keep_float of no layer",
        ),
        pytest.param(
            {"limits.metric": "acuracy"},
            "limits.metric: train.metrics has no 'acuracy'; did you mean 'accuracy'?",
            id="a limit of no metric",
        ),
        pytest.param({"limits.metric": "acc"}, "did you mean 'accuracy'?", id="a short name for a limit"),
        pytest.param(
            {"convert": [{"limits": {"metric": "auc"}}]},
            "convert.0.limits.metric: train.metrics has no 'auc'; known: accuracy",
            id="a limit of one file",
        ),
        pytest.param(
            {"train.metrics": [], "limits.min": 0.9},
            "limits.min: there is no metric to hold; add one to train.metrics",
            id="a limit without metrics",
        ),
        pytest.param(
            {"train.callbacks": [{"EarlyStopping": {"monitor": "val_acuracy"}}]},
            "train.callbacks.0.EarlyStopping.monitor: nothing is called 'val_acuracy'; did you mean 'val_accuracy'?",
            id="a monitor of no metric",
        ),
        pytest.param(
            {"train.callbacks": [{"ReduceLROnPlateau": {"monitor": "val_auc"}}]},
            "known: loss, accuracy, val_loss, val_accuracy",
            id="a monitor like no metric",
        ),
        pytest.param(
            {"train.keep": "last", "train.callbacks": [{"EarlyStopping": {"restore_best_weights": True}}]},
            "train.keep: contradicts restore_best_weights: true of EarlyStopping (got 'last'); write keep: best",
            id="keep last and restore best",
        ),
        pytest.param(
            {
                "train.optimizer": {
                    "SGD": {
                        "learning_rate": {
                            "ExponentialDecay": {"initial_learning_rate": 0.1, "decay_steps": 5, "decay_rate": 0.9}
                        }
                    }
                },
                "train.callbacks": ["ReduceLROnPlateau"],
            },
            "train.callbacks.0.ReduceLROnPlateau: changes a learning rate that the optimizer's schedule sets",
            id="a schedule and a plateau",
        ),
        pytest.param(
            {"train.callbacks": ["EarlyStopping", "EarlyStopping"]},
            "train.callbacks.1.EarlyStopping: EarlyStopping stands twice",
            id="a callback twice",
        ),
        pytest.param(
            {"train.callbacks": ["TerminateOnNaN"]},
            "train.callbacks.0.TerminateOnNaN: a loss that is not finite ends every training, with exit code 6",
            id="a callback that does what is done",
        ),
        pytest.param(
            {"train.callbacks": [{"ModelCheckpoint": {"filepath": "a.keras"}}]},
            "train.callbacks.0.ModelCheckpoint: mltool keeps checkpoints itself; write keep: best, or last",
            id="a callback that saves the model",
        ),
        pytest.param(
            {"train.callbacks": ["TensorBoard"]},
            "train.callbacks.0.TensorBoard: mltool writes events/ of the run itself; leave it out",
            id="a callback that writes events",
        ),
        pytest.param(
            {"train.metrics": ["accuracy", "acc"]},
            "train.metrics.1.accuracy.name: the name 'accuracy' is used twice",
            id="a metric twice",
        ),
        pytest.param(
            {"train.metrics": [{"AUC": {"name": "loss"}}]}, "'loss' is the name of the loss", id="a metric called loss"
        ),
        pytest.param(
            {"train.metrics": [{"AUC": {"name": "epoch"}}]},
            "train.metrics.0.AUC.name: 'epoch' means something else among the results; give it a name: of its own",
            id="a metric called as a key beside the results",
        ),
        pytest.param(
            {"train.metrics": [{"AUC": {"name": "val_loss"}}]},
            "'val_loss' means something else among the results",
            id="a metric called as a result of validation",
        ),
        *(
            pytest.param(
                {
                    "data.source": {"path": "two.npz", "target": {"top": "y"}},
                    "train.loss": ...,
                    "train.metrics": ...,
                    "train.outputs": {"top": {"loss": LOGITS, "metrics": [], **wrong}},
                },
                expected,
                id=f"nothing follows from a wrong {next(iter(wrong))} of an output",
            )
            for wrong, expected in (
                ({"loss": "mea"}, "train.outputs.top.loss: unknown loss 'mea'"),
                ({"metrics": ["acuracy"]}, "train.outputs.top.metrics.0: unknown metric 'acuracy'"),
                ({"weight": -1}, "train.outputs.top.weight: must be greater than 0"),
            )
        ),
        pytest.param(
            {
                "data.source": {"path": "two.csv", "target": {"tpo": "y"}},
                "model.preprocess": "auto",
                "train.loss": ...,
                "train.metrics": ...,
                "train.outputs": {"tpo": {"loss": LOGITS}},
            },
            "train.outputs.tpo: no layer is called 'tpo'; did you mean 'top'?",
            id="an output that is no layer, where the data say what comes before the layers",
        ),
        pytest.param(
            {
                "data.source": {"path": "two.npz", "target": {"top": "y"}},
                "train.metrics": ...,
                "train.outputs": {"top": {"loss": LOGITS}},
            },
            "train.loss: stands under outputs, for every output of its own; take it out here",
            id="a loss beside those of outputs",
        ),
        pytest.param(
            {
                "data.source": {"path": "two.npz", "target": {"tpo": "y"}},
                "train.loss": ...,
                "train.metrics": ...,
                "train.outputs": {"tpo": {"loss": LOGITS}},
            },
            "train.outputs.tpo: no layer is called 'tpo'; did you mean 'top'?",
            id="nothing follows from an output that is no layer",
        ),
        pytest.param(
            {
                "data.source": {"path": "two.npz", "target": {"val": "y"}},
                "model.layers.1": {"Dense": {"units": 10, "name": "val"}},
                "train.loss": ...,
                "train.metrics": ...,
                "train.outputs": {"val": {"loss": LOGITS}},
            },
            "train.outputs.val: results of an output 'val' would be taken for those of validation; give the layer",
            id="an output called as validation",
        ),
        *(
            pytest.param(
                {
                    "train.loss": "MeanSquaredError",
                    "train.metrics": [{name: arguments}],
                    "train.anomaly": {"normal": "0"},
                },
                f"train.metrics.0.{name}.{next(iter(arguments))}: has no meaning for anomalies",
                id=f"{name} of anomalies with an argument",
            )
            for name, arguments in (
                ("AUC", {"curve": "PR"}),
                ("F1Score", {"threshold": 0.5}),
                ("Precision", {"thresholds": 0.3}),
            )
        ),
        pytest.param(
            {"model.layers.1": {"Dense": {"units": 10, "activation": "softmax"}}},
            "the last layer 'dense' ends in softmax, and from_logits: true applies it again; take softmax out",
            id="softmax and logits",
        ),
        pytest.param(
            {"model.layers.1": {"Dense": {"units": 10}}, "train.loss": "sparse_categorical_crossentropy"},
            "the last layer 'dense' has no activation, so it gives logits; the loss expects probabilities; "
            "write SparseCategoricalCrossentropy: {from_logits: true}",
            id="logits and no from_logits",
        ),
        pytest.param(
            {"model.layers": ["Flatten", {"Dense": {"units": 10}}, "Softmax"]},
            "'softmax' ends in softmax",
            id="a Softmax layer",
        ),
        pytest.param(
            {
                "model.layers": [{"Dense": {"units": 1, "activation": "sigmoid"}}],
                "train.loss": {"BinaryCrossentropy": {"from_logits": True}},
            },
            "ends in sigmoid",
            id="sigmoid and logits",
        ),
        pytest.param(
            {
                "model.layers": [{"Dense": {"units": 10}}, {"Activation": {"activation": "linear"}}],
                "train.loss": {"CategoricalCrossentropy": {"from_logits": False}},
            },
            "'activation' has no activation",
            id="a linear Activation",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_cure(changes, expected, bench):
    found = bench.refused(changes)
    assert len(found) == 1, found
    assert expected in found[0]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"train.callbacks": [{"EarlyStopping": {"monitor": name}}]}, id=f"monitor {name}")
        for name in ("loss", "val_loss", "accuracy", "val_accuracy")
    ]
    + [
        pytest.param(
            {"train.metrics": [{"AUC": {"name": "area"}}], "limits.metric": "area"},
            id="a metric with a name of its own",
        ),
        pytest.param(
            {
                "model.layers.1": {"Dense": {"units": 10, "activation": "softmax"}},
                "train.loss": "SparseCategoricalCrossentropy",
            },
            id="softmax and probabilities",
        ),
        pytest.param(
            {
                "model.layers": ["Flatten", {"Dense": {"units": 10, "activation": "relu"}}],
                "train.loss": "SparseCategoricalCrossentropy",
            },
            id="an activation that tells nothing",
        ),
        pytest.param(
            {
                "model.layers": [{"Dense": {"units": 10}}, {"Dropout": {"rate": 0.1}}],
                "train.loss": "SparseCategoricalCrossentropy",
            },
            id="a last layer that tells nothing",
        ),
        pytest.param(
            {"model.layers": ["Flatten", {"Dense": {"units": 1}}], "train.loss": "mse", "train.metrics": []},
            id="a regression",
        ),
        pytest.param(
            {"model.layers": ["Flatten", {"Dense": {"units": 1}}], "train.loss": "huber", "train.metrics": []},
            id="a Huber loss",
        ),
        pytest.param({"train.keep": "last", "train.callbacks": ["EarlyStopping"]}, id="keep last without restoring"),
        pytest.param({"convert": []}, id="no file to convert to"),
        pytest.param(
            {"data.source": {"path": "a.npz"}, "data.split": {"test": 0.3}}, id="a file may bring no test set"
        ),
    ],
)
def test_what_fits_together_is_taken(changes, bench):
    assert bench.load(changes).name == "small"


def test_int8_io_is_short_for_two_keys(bench):
    entries = bench.load({"convert": [{"quantize": "int8-io"}, {"quantize": "int8", "io": "uint8"}, {}]}).convert
    assert [(e.quantize, e.io, e.name) for e in entries] == [
        *(("int8", "int8", "int8-io"), ("int8", "uint8", "int8-uint8"), ("none", "float32", "none"))
    ]


# Graphs


def layers(*items):
    return {"model.layers": list(items)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            layers({"Dense": {"units": 2, "name": "a"}}, {"Dense": {"units": 10, "name": "a"}}),
            "model.layers.1.Dense.name: the name 'a' is used twice",
            id="a name twice",
        ),
        pytest.param(
            {"model.preprocess": [{"Rescaling": {"scale": 2, "name": "top"}}]},
            "model.layers.1.Dense.name: the name 'top' is used twice",
            id="a name of preprocessing again",
        ),
        pytest.param(
            layers({"Dense": {"units": 2, "inputs": ["b"]}}, {"Dense": {"units": 10, "name": "b"}}),
            "model.layers.0.Dense.inputs.0: 'dense' takes its input from 'b', which comes later; put it after",
            id="an input that comes later",
        ),
        pytest.param(
            layers({"Dense": {"units": 10, "name": "b", "inputs": ["b"]}}),
            "'b' takes its input from itself",
            id="a layer that takes itself",
        ),
        pytest.param(
            layers({"Dense": {"units": 2, "name": "a"}}, {"Dense": {"units": 10, "inputs": ["image"]}}),
            "model.layers.0.Dense: nothing uses the output of 'a'; name it in the inputs",
            id="a layer that nobody uses",
        ),
        pytest.param(
            layers({"Dense": {"units": 2, "name": "stem"}}, {"Dense": {"units": 10, "inputs": ["stem", "setm"]}}),
            "inputs.1: no layer or input is called 'setm'; did you mean 'stem'?",
            id="an input that is not there",
        ),
        pytest.param(
            layers({"Dense": {"units": 10, "inputs": "image"}}),
            "must be a list of names of layers or inputs (got 'image'); write inputs: [name]",
            id="no list of inputs",
        ),
        pytest.param(
            layers({"Dense": {"units": 10, "inputs": []}}),
            "must be a list of names of layers or inputs (got [])",
            id="an empty list of inputs",
        ),
        pytest.param(
            layers({"Dense": {"units": 10, "name": "a b"}}),
            "'a b' is not a name; use letters",
            id="a name with a space",
        ),
        pytest.param(
            {"data.inputs": {"a": {}, "b": {}}},
            "model.layers.0.Flatten.inputs: the first layer must say which inputs it takes: a, b; add inputs: [a]",
            id="two inputs and no word of them",
        ),
        pytest.param(
            {"data.inputs": {"a": {}}, "model.preprocess": {"b": ["Normalization"]}},
            "model.preprocess.b: the data have no input called 'b'; known: a",
            id="preprocessing of no input",
        ),
        pytest.param(
            {"data.inputs": {"top": {}}},
            "data.inputs.top: 'top' is the name of an input and of a layer; rename",
            id="an input called as a layer",
        ),
        pytest.param(
            {"model.preprocess": [{"Rescaling": {"scale": 1, "inputs": ["x"]}}]},
            "model.preprocess.0.Rescaling.inputs: unknown argument",
            id="inputs in preprocessing",
        ),
    ],
)
def test_a_wrong_graph_is_refused(changes, expected, bench):
    found = bench.refused(changes)
    assert len(found) == 1, found
    assert expected in found[0]


SOUND = {"data.source": {"path": "sounds", "kind": "audio", "sample_rate": 8000, "seconds": 0.5}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"fft_length": 250},
            "fft_length: must be a power of two (got 250); write fft_length: 256, sequence_length",
        ),
        ({"fft_length": 2**30}, "fft_length: must be at most 1048576 (got 1073741824)"),
        ({"fft_length": 8192}, "fft_length: 8192 is more than the 4000 values of a sound"),
        ({"fft_length": 256, "sequence_length": 300}, "sequence_length: must be at most fft_length, 256 (got 300)"),
        ({"fft_length": 256, "sequence_length": 1}, "sequence_length: must be at least 4 (got 1); no window"),
        (
            {"fft_length": 256, "max_freq": 9000},
            "max_freq: must be at most half of the sample rate, 4000 Hz",
        ),
        ({"fft_length": 256, "min_freq": 4000}, "min_freq: must be below the highest frequency, 4000 Hz (got 4000)"),
        ({"fft_length": 256, "sample_rate": 16000}, "sample_rate: is 16000, data.source.sample_rate is 8000"),
        ({"fft_length": 256, "num_mfcc": 41}, "num_mfcc: must be at most num_mel_bins, 40 (got 41)"),
    ],
)
def test_a_spectrogram_that_cannot_be_is_told_with_its_place(arguments, expected, bench):
    [found] = bench.refused({**SOUND, "model.preprocess": [{"MFCC": arguments}]})
    assert f"model.preprocess.0.MFCC.{expected}" in found
    assert bench.load({**SOUND, "model.preprocess": [{"MFCC": {"fft_length": 256}}]}).model.layers


def test_a_list_of_preprocessing_cannot_serve_two_inputs(bench):
    changes = {
        "data.inputs": {"a": {}, "b": {}},
        "model.preprocess": ["Normalization"],
        "model.layers": [{"Add": {"inputs": ["a", "b"]}}, {"Dense": {"units": 10}}],
    }
    assert bench.refused(changes) == [
        "model.preprocess: must be a map from input to layers: the data have 2 inputs; write preprocess: {a: [...]}"
    ]


def test_layers_without_a_name_get_those_of_keras(bench):
    spec = bench.load(layers("Flatten", {"Dense": {"units": 3}}, {"Dense": {"units": 10}}))
    assert spec.model.layer_names == ("flatten", "dense", "dense_1")


PHASES = {
    "epochs beside phases": ({"train.epochs": 3}, "train.epochs: stands beside phases, which have their own"),
    "an optimizer beside phases": ({"train.optimizer": "adam"}, "take it out, or write optimizer: in every phase"),
    "no phase": ({"train.phases": []}, "train.phases: must have at least one phase (got [])"),
    "no epochs": ({"train.phases": [{"freeze": ["top"]}]}, "train.phases.0.epochs: is missing"),
    "epochs of none": ({"train.phases": [{"epochs": 0}]}, "train.phases.0.epochs: must be greater than 0 (got 0)"),
    "an optimizer that is none": (
        {"train.phases": [{"epochs": 1, "optimizer": "adm"}]},
        "train.phases.0.optimizer: unknown optimizer 'adm'; did you mean 'adam'?",
    ),
    "an unknown key": ({"train.phases": [{"epochs": 1, "freze": []}]}, "unknown key; did you mean 'freeze'?"),
    "no list": ({"train.phases": [{"epochs": 1, "freeze": "top"}]}, "freeze: must be a list (got 'top')"),
    "no expression": (
        {"train.phases": [{"epochs": 1, "freeze": ["top", "a("]}]},
        "train.phases.0.freeze.1: is no regular expression",
    ),
    "no layer": (
        {"train.phases": [{"epochs": 1}, {"epochs": 1, "freeze": ["tpo"]}]},
        "train.phases.1.freeze.0: no layer matches 'tpo'; did you mean 'top'?",
    ),
    "a path of no layer": (
        {"train.phases": [{"epochs": 1, "freeze": ["backbone/block_1"]}]},
        "no layer is called 'backbone', so none matches 'backbone/block_1'; known: flatten, top",
    ),
    "a schedule and a plateau": (
        {
            "train.callbacks": ["ReduceLROnPlateau"],
            "train.phases": [
                {"epochs": 1},
                {"epochs": 1, "optimizer": {"SGD": {"learning_rate": {"ExponentialDecay": {
                    "initial_learning_rate": 0.1, "decay_steps": 9, "decay_rate": 0.5}}}}},
            ],
        },
        "changes a learning rate that the optimizer's schedule sets in every step",
    ),
    "Keras' accumulation": (
        {"train.phases": [{"epochs": 1, "optimizer": {"Adam": {"gradient_accumulation_steps": 2}}}]},
        "train.phases.0.optimizer.Adam.gradient_accumulation_steps: Keras cannot accumulate under a strategy",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), PHASES.values(), ids=PHASES)
def test_phases_are_checked(changes, message, bench):
    (found,) = bench.refused({"train.phases": [{"epochs": 2}], **changes})
    assert message in found


def test_phases_read_back_from_the_resolved_spec(bench):
    phases = [{"epochs": 2, "freeze": ["(fla|to)p?.*"]}, {"epochs": 1, "optimizer": "sgd"}]
    loaded = bench.load({"train.phases": phases})
    assert [phase.epochs for phase in loaded.train.phases] == [2, 1]
    again = bench.write(dump_spec(loaded), "again.yaml")
    assert load_spec(again) == loaded
