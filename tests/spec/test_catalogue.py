"""The catalogue of Keras: what it holds, what it accepts, and what it says of mistakes; without Keras."""

import json
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from mltool.spec.argument_types import parse_type
from mltool.spec.catalogue import KINDS, KerasObject, Problem, call_arguments, json_schema, names, parse_keras_object
from mltool.spec.catalogue_entries import CATALOGUE_FILE, known_names, load_docs, load_entry, no_keras_layers
from mltool.spec.schedules import SCHEDULES

NESTED = {
    "Dense": {
        "units": 10,
        "activation": "swish",
        "kernel_initializer": {"HeNormal": {"seed": 1}},
        "kernel_regularizer": {"l2": {"l2": 1e-4}},
        "kernel_constraint": None,
    }
}


def problems(value, kind, **options):
    found = parse_keras_object(value, kind, **options)
    assert isinstance(found, list), f"accepted as {found}"
    assert found, "refused without saying why"
    assert all(isinstance(problem, Problem) for problem in found)
    return found


def only_problem(value, kind):
    found = problems(value, kind)
    assert len(found) == 1, found
    return found[0]


GOOD = {
    "a name": ("Adam", "optimizer", KerasObject("Adam")),
    "a short name": ("adam", "optimizer", KerasObject("Adam")),
    "a short name of a loss function": ("mse", "loss", KerasObject("MeanSquaredError")),
    "an alias of a class": ({"MaxPool2D": {"pool_size": 3}}, "layer", KerasObject("MaxPooling2D", {"pool_size": 3})),
    "an alias of a function": ("swish", "activation", KerasObject("silu")),
    "a short initializer": ("uniform", "initializer", KerasObject("RandomUniform")),
    "accuracy, which the loss resolves": ("accuracy", "metric", KerasObject("accuracy")),
    "acc, short for accuracy": ("acc", "metric", KerasObject("accuracy")),
    "the class Accuracy": ("Accuracy", "metric", KerasObject("Accuracy")),
    "a class without a __name__ of its own": (
        {"GroupQueryAttention": {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1}},
        "layer",
        KerasObject("GroupQueryAttention", {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1}),
    ),
    "arguments of null": ({"Flatten": None}, "layer", KerasObject("Flatten")),
    "an integer for a float": ({"Adam": {"learning_rate": 1}}, "optimizer", KerasObject("Adam", {"learning_rate": 1})),
    "null where the default is null": (
        {"ReLU": {"max_value": None}},
        "layer",
        KerasObject("ReLU", {"max_value": None}),
    ),
    "a list for a size": (
        {"Conv2D": {"filters": 4, "kernel_size": [3, 5]}},
        "layer",
        KerasObject("Conv2D", {"filters": 4, "kernel_size": [3, 5]}),
    ),
    "a list of pairs": (
        {"ZeroPadding2D": {"padding": [[1, 0], [0, 1]]}},
        "layer",
        KerasObject("ZeroPadding2D", {"padding": [[1, 0], [0, 1]]}),
    ),
    "causal padding in one dimension": (
        {"Conv1D": {"filters": 4, "kernel_size": 3, "padding": "causal"}},
        "layer",
        KerasObject("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal"}),
    ),
    "arguments of every layer": (
        {"Flatten": {"name": "flat", "dtype": "float32", "trainable": False}},
        "layer",
        KerasObject("Flatten", {"name": "flat", "dtype": "float32", "trainable": False}),
    ),
    "objects in arguments": (
        NESTED,
        "layer",
        KerasObject(
            "Dense",
            {
                "units": 10,
                "activation": KerasObject("silu"),
                "kernel_initializer": KerasObject("HeNormal", {"seed": 1}),
                "kernel_regularizer": KerasObject("L2", {"l2": 1e-4}),
                "kernel_constraint": None,
            },
        ),
    ),
    "a schedule for a number": (
        {"Adam": {"learning_rate": {"CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 9}}}},
        "optimizer",
        KerasObject(
            "Adam",
            {"learning_rate": KerasObject("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 9})},
        ),
    ),
    "a layer in a layer": (
        {"Bidirectional": {"layer": {"LSTM": {"units": 8}}}},
        "layer",
        KerasObject("Bidirectional", {"layer": KerasObject("LSTM", {"units": 8})}),
    ),
    "a list of layers in a layer": (
        {"Pipeline": {"layers": ["Flatten", {"Rescaling": {"scale": 2}}]}},
        "layer",
        KerasObject("Pipeline", {"layers": [KerasObject("Flatten"), KerasObject("Rescaling", {"scale": 2})]}),
    ),
}


@pytest.mark.parametrize(("value", "kind", "expected"), GOOD.values(), ids=GOOD)
def test_a_good_value_gives_the_object_it_means(value, kind, expected):
    assert parse_keras_object(value, kind) == expected


@pytest.mark.parametrize(("value", "kind", "expected"), GOOD.values(), ids=GOOD)
def test_an_object_written_as_a_spec_reads_back_equal(value, kind, expected):
    written = json.loads(json.dumps(parse_keras_object(value, kind).to_spec()))
    assert parse_keras_object(written, kind) == expected


BAD = {
    "misspelt argument": (
        {"Adam": {"learning_rte": 1}},
        "optimizer",
        (("Adam", "learning_rte"), True, "unknown argument", "did you mean 'learning_rate'?"),
    ),
    "an argument of older Keras": (
        {"SGD": {"lr": 0.1}},
        "optimizer",
        (("SGD", "lr"), True, "unknown argument", "did you mean 'learning_rate'?"),
    ),
    "an argument like nothing": (
        {"L2": {"factor": 1}},
        "regularizer",
        (("L2", "factor"), True, "unknown argument", "known arguments: l2"),
    ),
    "an argument where none is taken": (
        {"NonNeg": {"axis": 1}},
        "constraint",
        (("NonNeg", "axis"), True, "unknown argument", "NonNeg takes no arguments"),
    ),
    "input_shape of a layer": (
        {"Flatten": {"input_shape": [8, 8]}},
        "layer",
        (("Flatten", "input_shape"), True, "unknown argument", "the shape comes from the data"),
    ),
    "a layer for the activation of that name": (
        {"ELU": {"alpha": 1.0}},
        "activation",
        (("ELU",), True, "unknown activation 'ELU'", "did you mean 'elu'?"),
    ),
    "an activation with arguments": (
        {"elu": {"alpha": 1.0}},
        "activation",
        (
            ("elu", "alpha"),
            True,
            "unknown argument",
            "Keras cannot save an activation with arguments; use a layer such as LeakyReLU, ReLU, ELU or Softmax",
        ),
    ),
    "a missing argument in a map": (
        {"Dense": {"activation": "relu"}},
        "layer",
        (("Dense",), True, "missing argument 'units'", "write Dense: {units: ...}"),
    ),
    "a missing argument of a bare name": (
        "Dense",
        "layer",
        ((), False, "missing argument 'units'", "write Dense: {units: ...}"),
    ),
    "a misspelt name": ("Convv2D", "layer", ((), False, "unknown layer 'Convv2D'", "did you mean 'Conv2D'?")),
    "a name in the wrong case": ("conv2d", "layer", ((), False, "unknown layer 'conv2d'", "did you mean 'Conv2D'?")),
    "a name in snake case": (
        {"early_stopping": {"patience": 3}},
        "callback",
        (("early_stopping",), True, "unknown callback 'early_stopping'", "did you mean 'EarlyStopping'?"),
    ),
    "a name of another kind": (
        "Adam",
        "loss",
        ((), False, "unknown loss 'Adam'", "'Adam' is an optimizer, not a loss"),
    ),
    "a name like nothing": ("Qqqq", "loss", ((), False, "unknown loss 'Qqqq'", "`mltool schema` lists every loss")),
    "a layer that runs code": (
        {"Lambda": {"function": "print"}},
        "layer",
        (
            ("Lambda",),
            True,
            "'Lambda' cannot be used in a spec: it runs code that a spec cannot hold; use one of Keras' own layers",
            "",
        ),
    ),
    "a base class": ("Layer", "layer", ((), False, "'Layer' cannot be used in a spec: it is a base class", "")),
    "two names": (
        {"Dense": {"units": 1}, "Flatten": None},
        "layer",
        (
            (),
            False,
            "must be one layer (got a map of 2 keys: 'Dense', 'Flatten')",
            "write every layer as an item of a list",
        ),
    ),
    "arguments beside the name": (
        {"Dense": None, "units": 3},
        "layer",
        ((), False, "must be one layer (got a map of 2 keys: 'Dense', 'units')", "indent the arguments under Dense"),
    ),
    "an empty map": ({}, "loss", ((), False, "must be one loss (got a map of 0 keys)", None)),
    "a list": ([1], "layer", ((), False, "must be a layer (got [1])", "write Dense or Dense: {...}")),
    "null": (None, "optimizer", ((), False, "must be an optimizer (got null)", "write Adam or Adam: {...}")),
    "a number as the name": ({1: None}, "layer", ((1,), True, "must be the name of a layer (got 1)", "")),
    "arguments that are no map": (
        {"Dense": 5},
        "layer",
        (("Dense",), False, "the arguments must be a map (got 5)", "write Dense: {units: ...}"),
    ),
}


@pytest.mark.parametrize(("value", "kind", "expected"), BAD.values(), ids=BAD)
def test_a_bad_name_or_argument_is_one_problem_in_its_place(value, kind, expected):
    path, at_key, message, hint = expected
    problem = only_problem(value, kind)
    assert (problem.path, problem.at_key, problem.message) == (path, at_key, message)
    assert hint is None or problem.hint == hint


BAD_ARGUMENTS = {
    "text for an integer": ("Dense", "units", "many", "an integer greater than 0 (got 'many')", ""),
    "a quoted integer": ("Dense", "units", "10", "an integer greater than 0 (got '10')", "remove the quotes"),
    "a whole float for an integer": ("Dense", "units", 10.0, "an integer greater than 0 (got 10.0)", "write 10"),
    "a fraction for an integer": ("Dense", "units", 1.5, "an integer greater than 0 (got 1.5)", ""),
    "a boolean for an integer": ("Dense", "units", True, "an integer greater than 0 (got true)", ""),
    "null for an integer": ("Dense", "units", None, "an integer greater than 0 (got null)", ""),
    "zero units": ("Dense", "units", 0, "an integer greater than 0 (got 0)", ""),
    "YAML 1.1's on": (
        "Dense",
        "use_bias",
        "on",
        "true or false (got 'on')",
        "YAML 1.2 reads `on` as text; write true or false",
    ),
    "a quoted boolean": ("Dense", "use_bias", "true", "true or false (got 'true')", "remove the quotes"),
    "a number for a boolean": ("Dense", "use_bias", 1, "true or false (got 1)", ""),
    "a boolean for a number": ("Dropout", "rate", False, "a number from 0 to 1 (got false)", ""),
    "a rate above 1": ("Dropout", "rate", 20, "a number from 0 to 1 (got 20)", ""),
    "a wrong choice": ("Conv2D", "padding", "sam", "one of 'valid', 'same' (got 'sam')", "did you mean 'same'?"),
    "causal padding in two dimensions": ("Conv2D", "padding", "causal", "one of 'valid', 'same' (got 'causal')", ""),
    "a list of the wrong length": (
        "Conv2D",
        "strides",
        [1, 1, 1],
        "an integer greater than 0 or a list of 2 integers greater than 0 (got [1, 1, 1])",
        "",
    ),
    "a number for a list": ("Reshape", "target_shape", 64, "a list of integers (got 64)", ""),
    "a name with a slash": ("Dense", "name", "a/b", "a name without '/' or null (got 'a/b')", ""),
    "an unknown dtype": (
        "Dense",
        "dtype",
        "float23",
        "a dtype such as 'float32', 'int32' or 'mixed_float16' or null (got 'float23')",
        "",
    ),
    "a quoted number beside a schedule": (
        "Adam",
        "learning_rate",
        "1e-3",
        "a number of at least 0 or a schedule (got '1e-3')",
        "remove the quotes",
    ),
    "not a number": ("Adam", "learning_rate", float("nan"), "a number of at least 0 or a schedule (got nan)", ""),
    "an integer too large for a float": (
        "Dropout",
        "rate",
        10**400,
        f"a number from 0 to 1 (got 1{'0' * 56}...)",
        "",
    ),
    "a list for an object": ("Dense", "activation", ["relu"], "an activation or null (got ['relu'])", ""),
    "null where the default is none": ("LSTM", "kernel_initializer", None, "an initializer (got null)", ""),
}


@pytest.mark.parametrize(("name", "argument", "value", "message", "hint"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_a_bad_argument_says_what_was_passed_and_what_was_expected(name, argument, value, message, hint):
    kind = "optimizer" if name == "Adam" else "layer"
    good = {"filters": 2, "kernel_size": 3, "units": 4}
    required = {key: good[key] for key in load_entry(kind, name).required if key in good}
    problem = only_problem({name: {**required, argument: value}}, kind)
    assert problem == Problem((name, argument), False, f"must be {message}", hint)


def test_all_problems_of_a_value_come_at_once_with_paths_into_what_is_nested():
    value = {
        "Bidirectional": {
            "layer": {"LSTM": {"units": 8.0, "activation": "tan", "kernel_regularizer": {"L2": {"l3": 1}}}},
            "merge_mod": "sum",
        }
    }
    found = problems(value, "layer")
    inside = ("Bidirectional", "layer", "LSTM")
    assert [(problem.path, problem.at_key) for problem in found] == [
        ((*inside, "units"), False),
        ((*inside, "activation"), False),
        ((*inside, "kernel_regularizer", "L2", "l3"), True),
        (("Bidirectional", "merge_mod"), True),
    ]


def test_a_problem_in_a_list_names_its_place():
    items = {"Pipeline": {"layers": ["Flatten", "Flaten", {"Dense": {"unit": 3}}]}}
    found = problems(items, "layer")
    assert [problem.path for problem in found] == [
        ("Pipeline", "layers", 1),
        ("Pipeline", "layers", 2, "Dense", "unit"),  # and not that `units` is missing: it is the same mistake
    ]
    sizes = problems({"Conv2D": {"filters": 2, "kernel_size": [3, "a"]}}, "layer")
    assert [problem.path for problem in sizes] == [("Conv2D", "kernel_size", 1)]


def test_extra_arguments_are_kept_for_the_caller_and_unknown_elsewhere():
    value = {"Add": {"inputs": ["stem", "body"]}}
    expected = KerasObject("Add", {"inputs": ["stem", "body"]})
    assert parse_keras_object(value, "layer", extra_arguments=["inputs"]) == expected
    assert expected.to_spec() == value
    assert only_problem(value, "layer").path == ("Add", "inputs")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("Dense", ("inputs",)),
        ("Concatenate", ("inputs",)),
        ("MultiHeadAttention", ("query", "value")),
        ("LSTM", ("sequences",)),
        ("RandomFlip", ("data",)),
    ],
)
def test_a_layer_tells_which_tensors_it_is_called_with(layer, expected):
    assert call_arguments(layer) == expected


def test_what_is_no_layer_has_no_call_arguments():
    with pytest.raises(KeyError, match="Adam"):
        call_arguments("Adam")


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_is_of_its_own_type_and_round_trips(kind):
    checked = 0
    for name in names(kind):
        for key, argument in load_entry(kind, name).arguments.items():
            if not argument.required:
                checked += 1
                found = parse_keras_object({name: {key: argument.default}}, kind)
                wrong = [problem for problem in found if problem.path[1:]] if isinstance(found, list) else []
                assert not wrong, f"{name}.{key}: {wrong}"
    assert checked > 0 or kind == "activation"


def test_no_argument_is_of_unknown_type():
    types = {
        f"{kind} {name}.{key}": argument.type
        for kind in KINDS
        for name in names(kind)
        for key, argument in load_entry(kind, name).arguments.items()
    }
    assert len(types) > 2000
    assert sum(len(parse_type(text)) > 0 for text in types.values()) == len(types)
    # Counted so that it cannot grow unseen: give a new argument a row in `argument_table`.
    assert [name for name, text in types.items() if "any" in text] == []


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_sorted_canonical_and_without_short_names(kind):
    assert list(names(kind)) == sorted(names(kind))
    assert all(known_names(kind)[name] == name for name in names(kind))


SCHEMA_VALUES = {
    "a bare name": ("layer", "Flatten", True),
    "a bare name that needs arguments": ("layer", "Dense", False),
    "a short name": ("optimizer", "adam", True),
    "a short name with arguments": ("optimizer", {"adam": {"learning_rate": 0.1}}, True),
    "a short name with wrong arguments": ("optimizer", {"adam": {"learning_rte": 0.1}}, False),
    "nested objects": ("layer", NESTED, True),
    "a layer in a layer": ("layer", {"TimeDistributed": {"layer": {"Dense": {"units": 2}}}}, True),
    "a wrong layer in a layer": ("layer", {"TimeDistributed": {"layer": {"Dense": {"units": "2"}}}}, False),
    "inputs of a layer": ("layer", {"Add": {"inputs": ["a", "b"]}}, True),
    "inputs that are no list": ("layer", {"Add": {"inputs": "a"}}, False),
    "inputs of an optimizer": ("optimizer", {"Adam": {"inputs": ["a"]}}, False),
    "null arguments": ("layer", {"Flatten": None}, True),
    "null for required arguments": ("layer", {"Dense": None}, False),
    "two names": ("layer", {"Flatten": None, "Identity": None}, False),
    "an unknown name": ("layer", "Flaten", False),
    "a schedule": ("optimizer", {"SGD": {"learning_rate": {"PolynomialDecay": {"initial_learning_rate": 1}}}}, False),
    "a number below its bound": ("layer", {"Dropout": {"rate": -0.1}}, False),
    "a list of the wrong length": ("layer", {"Conv2D": {"filters": 1, "kernel_size": [1]}}, False),
    "accuracy": ("metric", "accuracy", True),
}


@pytest.fixture(scope="module")
def validators():
    definitions = {f"keras_{kind}": json_schema(kind) for kind in KINDS}
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}
    Draft202012Validator.check_schema(dialect)
    return {kind: Draft202012Validator({**dialect, "$ref": f"#/$defs/keras_{kind}"}) for kind in KINDS}


@pytest.mark.parametrize(("kind", "value", "valid"), SCHEMA_VALUES.values(), ids=SCHEMA_VALUES)
def test_the_json_schema_accepts_what_the_checks_accept(kind, value, valid, validators):
    extra = ["inputs"] if kind == "layer" and valid else []
    assert validators[kind].is_valid(value) is valid
    assert isinstance(parse_keras_object(value, kind, extra_arguments=extra), KerasObject) is valid


def test_the_json_schema_describes_layers_and_their_arguments():
    dense = json_schema("layer")["anyOf"][1]["properties"]["Dense"]
    assert dense["description"] == "Just your regular densely-connected NN layer."
    assert dense["properties"]["units"]["description"].startswith("Positive integer")
    assert dense["properties"]["use_bias"] == {
        "type": "boolean",
        "default": True,
        "description": dense["properties"]["use_bias"]["description"],
    }
    described = [len(docs) > 1 for docs in load_docs()["layer"].values()]
    assert sum(described) == len(described)


def test_checking_imports_nothing_heavy_and_reads_no_docs():
    script = (
        "import sys; from mltool.spec.catalogue import parse_keras_object as p; p({'Dense': {'units': 1}}, 'layer');"
        "from mltool.spec.catalogue_entries import load_docs; assert load_docs.cache_info().currsize == 0;"
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestAgainstTheInstalledKeras:
    """Needs Keras, and so TensorFlow: the one part of this file that is slow to import."""

    @pytest.fixture
    def keras(self):
        return pytest.importorskip("keras")

    def test_the_shipped_files_are_what_the_generator_makes(self, keras):
        from mltool.spec.catalogue_entries import DOCS_FILE
        from mltool.spec.write_catalogue import make_catalogue

        shipped = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))["keras"]
        if shipped.split(".")[:2] == keras.__version__.split(".")[:2] and shipped != keras.__version__:
            pytest.skip(f"the catalogue is of Keras {shipped}, this is {keras.__version__}: same minor version")
        again = "run python -m mltool.spec.write_catalogue"
        catalogue, docs = make_catalogue()
        assert CATALOGUE_FILE.read_text(encoding="utf-8") == catalogue, again
        assert DOCS_FILE.read_text(encoding="utf-8") == docs, again

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "activation"])
    def test_every_public_class_is_in_the_catalogue_or_refused_with_a_reason(self, keras, kind):
        from mltool.spec.argument_table import REFUSED

        module = keras.optimizers.schedules if kind == "schedule" else getattr(keras, MODULES[kind])
        public = {name for name in dir(module) if isinstance(getattr(module, name), type)}
        assert len(public) > 4
        assert public - set(known_names(kind)) == set(REFUSED[kind])
        assert all(REFUSED[kind].values())

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_name_is_found_in_keras_under_its_canonical_name(self, keras, kind):
        module = keras.optimizers.schedules if kind == "schedule" else getattr(keras, MODULES[kind])
        ours = no_keras_layers() | (SCHEDULES.keys() if kind == "schedule" else set())
        absent = [name for name in names(kind) if not hasattr(module, name) and name not in ours]
        assert absent == (["accuracy", "crossentropy"] if kind == "metric" else [])

    def test_short_names_mean_the_same_to_keras(self, keras):
        for kind in ("optimizer", "initializer", "regularizer", "constraint"):
            get = getattr(keras, MODULES[kind]).get
            # `l1_l2` is public but unknown to `get`; `constant` is known, and breaks in Keras 3.15 for want of a value.
            short = {alias: name for alias, name in known_names(kind).items() if alias != name}
            assert short
            for alias, name in short.items() - {("l1_l2", "L1L2"), ("constant", "Constant")}:
                assert type(get(alias)).__name__ == name, f"{kind} {alias}"

    def test_layers_take_the_arguments_that_the_catalogue_gives_every_layer(self, keras):
        common = {"name": "given", "trainable": False, "activity_regularizer": "l2", "autocast": False}
        built = 0
        for name in set(names("layer")) - no_keras_layers():
            entry = load_entry("layer", name)
            if not entry.required and name not in ("CategoryEncoding", "Discretization"):
                layer = getattr(keras.layers, name)(**{k: v for k, v in common.items() if k in entry.arguments})
                assert layer.name == "given"
                built += 1
        assert built > 60


MODULES = {
    "layer": "layers",
    "optimizer": "optimizers",
    "loss": "losses",
    "metric": "metrics",
    "callback": "callbacks",
    "initializer": "initializers",
    "regularizer": "regularizers",
    "constraint": "constraints",
    "activation": "activations",
}
