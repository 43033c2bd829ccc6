"""Files of others: what comes in, what is refused before anything of it runs, and what is said."""

import base64
import json
import marshal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion.engines.converter import convert_saved_model
from mltool.conversion.sources.foreign import Foreign, open_foreign
from mltool.errors import ArtifactError, ConversionError, MltoolError, UsageError

Open = Callable[..., Foreign]

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
X = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as child:
        yield child


@pytest.fixture
def open_file(child: Child, tmp_path: Path) -> Open:
    """Opens a file in the one warm child."""

    def opened(path: Path, **arguments: Any) -> Foreign:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return open_foreign(path, scratch, child=child, **arguments)

    return opened


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels of every kind, by name."""
    import tensorflow as tf

    root = tmp_path_factory.mktemp("saved")
    spec = tf.TensorSpec([None, 4], tf.float32, name="x")
    module = tf.Module()
    module.w = tf.Variable(WEIGHTS, name="w")

    def save(name: str, *specs: Any, **functions: Any) -> None:
        ready = {key: tf.function(one).get_concrete_function(*(specs or (spec,))) for key, one in functions.items()}
        tf.saved_model.save(module, str(root / name), signatures=ready)

    def scores(x: Any) -> Any:
        return {"scores": tf.nn.relu(tf.matmul(x, module.w, name="dense/MatMul"))}

    def double(x: Any) -> Any:
        wide = tf.matmul(tf.cast(x, tf.float64), tf.cast(module.w, tf.float64), name="dense/MatMul")
        return {"scores": tf.cast(wide, tf.float32)}

    def writes(x: Any) -> Any:
        tf.io.write_file(str(root / "written"), "by a model")
        return {"scores": tf.identity(x)}

    def prints(x: Any) -> Any:
        tf.print("told", output_stream=f"file://{root / 'printed'}")
        return {"scores": tf.identity(x)}

    def calls_python(x: Any) -> Any:
        return {"scores": tf.ensure_shape(tf.py_function(lambda value: value, [x], tf.float32), [None, 4])}

    save("one", serving_default=scores)
    save("two", first=scores, second=lambda x: {"twice": 2.0 * x})
    save("double", serving_default=double)
    save("unranked", tf.TensorSpec(None, tf.float32, name="x"), serving_default=lambda x: {"y": tf.nn.relu(x)})
    text = tf.TensorSpec([None], tf.string, name="text")
    save("text", text, serving_default=lambda text: {"n": tf.strings.length(text)})
    save("writes", serving_default=writes)
    save("prints", serving_default=prints)
    save("python", serving_default=calls_python)
    save("none")
    _save_as_tensorflow_1(root / "old")
    return root


def _save_as_tensorflow_1(folder: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="in")
        weights = v1.get_variable("dense/w", initializer=WEIGHTS, use_resource=False)
        y = tf.nn.relu(tf.matmul(x, weights, name="dense/MatMul"))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"scores": y})


def _converted(foreign: Foreign, path: Path, samples: np.ndarray) -> np.ndarray:
    """What a float file of it answers, one sample at a time."""
    from ai_edge_litert.interpreter import Interpreter

    convert_saved_model(
        saved_model=str(foreign.saved_model),
        signature=foreign.signature,
        output=str(path),
        quantize="none",
        io="float32",
        batch=foreign.batch or 1,
        representative=None,
        keep_float=[],
        layer_names=list(foreign.layers),
    )
    runner = Interpreter(str(path)).get_signature_runner()
    name = foreign.inputs[0].name
    return np.concatenate([runner(**{name: samples[i : i + 1]})[foreign.outputs[0].name] for i in range(len(samples))])


EXPECTED = np.maximum(X @ WEIGHTS, 0)


@pytest.mark.parametrize("name", ["one", "old"])
def test_a_saved_model_of_either_tensorflow_converts(open_file: Open, folders: Path, tmp_path: Path, name: str):
    foreign = open_file(folders / name)

    assert (foreign.kind, foreign.name, foreign.signature) == ("saved_model", name, "serving_default")
    assert [(info.name, info.dtype, info.shape) for info in foreign.inputs] == [("x", "float32", (4,))]
    assert [info.name for info in foreign.outputs] == ["scores"]
    assert "dense" in foreign.layers
    np.testing.assert_allclose(_converted(foreign, tmp_path / "f.tflite", X), EXPECTED, atol=1e-6)


def test_inputs_and_outputs_have_one_order(open_file: Open, tmp_path: Path):
    import tensorflow as tf

    names = [f"{letter}{digit}" for digit in "10" for letter in "cab"]

    def served(**inputs: Any) -> Any:
        return {f"of_{name}": 2.0 * inputs[name] for name in names}

    specs = {name: tf.TensorSpec([None, 2], name=name) for name in names}
    function = tf.function(served).get_concrete_function(**specs)
    tf.saved_model.save(tf.Module(), str(tmp_path / "many"), signatures=function)

    foreign = open_file(tmp_path / "many")

    assert [info.name for info in foreign.inputs] == sorted(names)
    assert [info.name for info in foreign.outputs] == sorted(f"of_{name}" for name in names)


def test_of_several_signatures_one_is_chosen(open_file: Open, folders: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"several signatures: first, second; choose one: --signature first"):
        open_file(folders / "two")
    with pytest.raises(UsageError, match=r"no signature 'third'; it has first, second"):
        open_file(folders / "two", signature="third")

    foreign = open_file(folders / "two", signature="second")

    np.testing.assert_allclose(_converted(foreign, tmp_path / "f.tflite", X), 2 * X, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("double", ConversionError, r"MatMul of layer 'dense' \(dense/MatMul\) computes in float64"),
        ("unranked", ConversionError, r"input 'x' of serving_default has no known number of dimensions"),
        ("text", ConversionError, r"input 'text' of serving_default is text"),
        ("none", ConversionError, r"has no signature: nothing says what it takes; save it with one"),
        ("writes", ArtifactError, r"operators that touch files.*: WriteFile; .*--allow-code"),
        ("prints", ArtifactError, r"operators that touch files.*: PrintV2"),
        ("python", ArtifactError, r"operators that touch files.*: EagerPyFunc"),
    ],
)
def test_a_saved_model_that_cannot_be_or_must_not_be_is_refused(
    open_file: Open, folders: Path, name: str, error: type[MltoolError], said: str
):
    with pytest.raises(error, match=said):
        open_file(folders / name)

    assert not (folders / "written").exists()
    assert not (folders / "printed").exists()


def test_a_saved_model_with_unsafe_operators_opens_when_the_user_allows_it(open_file: Open, folders: Path):
    assert open_file(folders / "writes", allow_code=True).outputs[0].name == "scores"
    assert not (folders / "written").exists()  # opened, not called


def test_a_saver_that_a_signature_reaches_is_refused(open_file: Open, tmp_path: Path):
    """Every SavedModel has SaveV2 for its weights; one in the model itself would overwrite files."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def saves(x: Any) -> Any:
        tf.raw_ops.SaveV2(prefix=str(tmp_path / "w"), tensor_names=["a"], shape_and_slices=[""], tensors=[x])
        return {"scores": tf.identity(x)}

    tf.saved_model.save(tf.Module(), str(tmp_path / "saves"), signatures=saves)

    with pytest.raises(ArtifactError, match="SaveV2"):
        open_file(tmp_path / "saves")


def test_a_damaged_saved_model_is_said_to_be(open_file: Open, tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/saved_model.pb").write_bytes(b"\xff\xff nothing")
    with pytest.raises(ArtifactError, match="is damaged"):
        open_file(tmp_path / "m")
    (tmp_path / "deep/1").mkdir(parents=True)
    (tmp_path / "deep/1/saved_model.pb").touch()
    with pytest.raises(ArtifactError, match=r"holds no saved_model.pb; give .*deep/1"):
        open_file(tmp_path / "deep")


def _model(library: Any, activation: Any = "relu") -> Any:
    layers = library.layers
    model = library.Sequential(
        [library.Input((4,), name="x"), layers.Dense(3, activation=activation, name="dense", use_bias=False)]
    )
    model.set_weights([WEIGHTS])
    return model


def _library(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_a_file_of_either_keras_is_opened_by_the_one_that_wrote_it(
    open_file: Open, tmp_path: Path, name: str, ending: str
):
    path = tmp_path / f"model.{ending}"
    _model(_library(name)).save(path)

    foreign = open_file(path)

    assert foreign.loaded_by.startswith(f"{name} ")
    assert (foreign.kind, foreign.layers, foreign.signature) == (ending, ("dense",), "serving_default")
    assert [(info.name, info.shape) for info in foreign.inputs] == [("x", (4,))]
    assert foreign.difference is not None
    assert foreign.difference <= 1e-5
    np.testing.assert_allclose(_converted(foreign, tmp_path / "f.tflite", X), EXPECTED, atol=1e-6)


def test_inputs_and_outputs_keep_their_names(open_file: Open, tmp_path: Path):
    import keras

    ids, dense = keras.Input((6,), dtype="int64", name="ids"), keras.Input((4,), name="dense-part")
    joined = keras.layers.Embedding(5, 4, name="table")(ids)
    joined = keras.layers.Add(name="sum")([keras.layers.GlobalAveragePooling1D(name="mean")(joined), dense])
    outputs = {"score": keras.layers.Dense(1, name="a")(joined), "kind": keras.layers.Dense(2, name="b")(joined)}
    keras.Model([ids, dense], outputs).save(tmp_path / "m.keras")

    foreign = open_file(tmp_path / "m.keras")

    assert {(info.name, info.dtype) for info in foreign.inputs} == {("ids", "int32"), ("dense_part", "float32")}
    assert {info.name for info in foreign.outputs} == {"score", "kind"}


def _with_payload(path: Path, written: Path) -> None:
    """A tf_keras file whose Lambda would write a file: its bytecode is put in behind Keras' back."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.Input((4,), name="x"), tf_keras.layers.Lambda(lambda x: x, name="evil")])
    model.save(path)
    code = compile(f"lambda x: (open({str(written)!r}, 'w').close(), x)[1]", "evil", "eval").co_consts[0]
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        layer = next(one for one in config["config"]["layers"] if one["class_name"] == "Lambda")
        layer["config"]["function"] = [base64.b64encode(marshal.dumps(code)).decode(), None, None]
        file.attrs["model_config"] = json.dumps(config)


def test_the_code_of_a_lambda_does_not_run(open_file: Open, tmp_path: Path):
    import tf_keras

    written, path = tmp_path / "written", tmp_path / "evil.h5"
    _with_payload(path, written)

    with pytest.raises(ArtifactError, match=r"holds code: Lambda layer 'evil'; .*--allow-code"):
        open_file(path)

    assert not written.exists()
    tf_keras.models.load_model(path, compile=False)
    assert written.exists()  # else this test would prove nothing


def test_the_code_of_a_lambda_runs_when_the_user_allows_it(open_file: Open, tmp_path: Path):
    _with_payload(tmp_path / "evil.h5", tmp_path / "written")

    assert open_file(tmp_path / "evil.h5", allow_code=True).layers == ("evil",)
    assert (tmp_path / "written").exists()


def _altered(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A Keras 3 file with another description."""
    import keras

    plain = path.with_name("plain.keras")
    _model(keras).save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config["config"]["layers"][1])
                data = json.dumps(config).encode()
            target.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"module": "my_layers", "class_name": "Scale", "registered_name": "mine>Scale"}, "Scale of my_layers",
            id="class of the user's",
        ),
        pytest.param({"module": "os", "class_name": "system"}, "system of os", id="module of Python"),
        pytest.param({"module": "keras.saving", "class_name": "load_model"}, "load_model of keras.saving", id="loader"),
        pytest.param({"module": "keras.layers", "class_name": "TFSMLayer"}, "TFSMLayer layer 'dense' runs a SavedModel",
            id="layer that runs a SavedModel"),
    ],
)  # fmt: skip
def test_what_is_not_kerass_own_is_refused_by_name(open_file: Open, tmp_path: Path, change: dict[str, str], said: str):
    with pytest.raises(ArtifactError, match=said):
        open_file(_altered(tmp_path / "m.keras", lambda layer: layer.update(change)))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        pytest.param(
            "activation",
            {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
            "the function exec",
            id="function of Python",
        ),
        pytest.param("vocabulary", "/etc/passwd", "Dense layer 'dense' reads the file '/etc/passwd'", id="file"),
    ],
)
def test_arguments_that_reach_outside_are_refused(open_file: Open, tmp_path: Path, key: str, value: Any, said: str):
    path = _altered(tmp_path / "m.keras", lambda layer: layer["config"].update({key: value}))

    with pytest.raises(ArtifactError, match=said):
        open_file(path)


def test_a_function_of_tensorflow_that_touches_files_is_refused(open_file: Open, tmp_path: Path):
    import tf_keras

    x = tf_keras.Input((4,), name="x")
    tf_keras.Model(x, x * 2.0 + 1.0).save(tmp_path / "m.h5")
    assert open_file(tmp_path / "m.h5").outputs[0].shape == (4,)  # arithmetic of tensors is such a layer too
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["model_config"] = str(file.attrs["model_config"]).replace('"math.multiply"', '"io.write_file"')

    with pytest.raises(ArtifactError, match=r"holds code: TFOpLambda layer 'tf.math.multiply' calls tf.io.write_file"):
        open_file(tmp_path / "m.h5")


def _described(path: Path, layer: dict[str, Any]) -> Path:
    """An HDF5 file of Keras 2 with one layer behind its input, and no weights."""
    given = {"batch_input_shape": [None, 2], "dtype": "float32", "name": "x"}
    start = {"class_name": "InputLayer", "name": "x", "config": given, "inbound_nodes": []}
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["evil", 0, 0]]}
    model = {"class_name": "Functional", "config": {"name": "m", "layers": [start, layer], **ends}}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["keras_version"] = "2.15.0"
        file.create_group("model_weights").attrs["layer_names"] = []
    return path


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("SlicingOpLambda", {"function": "io.write_file"}, "SlicingOpLambda layer 'evil' calls tf.io.write_file"),
        ("TensorFlowOpLayer", {"node_def": "", "constants": {}}, "layer 'evil' runs any operator of TensorFlow"),
        (["Dense"], {}, "is damaged: the name of a class in it is no text"),
    ],
)
def test_no_other_layer_of_keras_2_touches_files(
    open_file: Open, tmp_path: Path, kind: Any, config: dict[str, Any], said: str
):
    written = tmp_path / "written"
    call = [["_CONSTANT_VALUE", -1, str(written), {"contents": "by a model"}]]
    layer = {"class_name": kind, "name": "evil", "config": {"name": "evil", **config}, "inbound_nodes": call}

    with pytest.raises(ArtifactError, match=said):
        open_file(_described(tmp_path / "m.h5", layer))

    assert not written.exists()


def test_what_a_model_inside_was_compiled_with_is_looked_at_too(open_file: Open, tmp_path: Path):
    loss = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
    path = _altered(tmp_path / "m.keras", lambda layer: layer.update({"compile_config": {"loss": loss}}))

    with pytest.raises(ArtifactError, match="the function system of os"):
        open_file(path)


def test_a_graph_that_is_hidden_in_a_constant_is_refused(open_file: Open, tmp_path: Path):
    import tensorflow as tf

    numbers = tf.data.Dataset.from_tensors(tf.zeros(2))
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=numbers._variant_tensor).numpy()

    def served(x: Any) -> Any:
        hidden = tf.raw_ops.DatasetFromGraph(graph_def=graph)
        types: dict[str, Any] = {"output_types": [tf.float32], "output_shapes": [[2]]}
        return {"y": x + tf.raw_ops.DatasetToSingleElement(dataset=hidden, **types)[0]}

    function = tf.function(served, input_signature=[tf.TensorSpec([None, 2], name="x")])
    tf.saved_model.save(tf.Module(), str(tmp_path / "hides"), signatures=function.get_concrete_function())

    with pytest.raises(ArtifactError, match=r"operators that touch files.*: DatasetFromGraph"):
        open_file(tmp_path / "hides")


def test_a_bomb_is_not_unpacked(open_file: Open, tmp_path: Path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", bytes(80 << 20))

    with pytest.raises(ArtifactError, match=r"unpacks to 83,886,084: that is a bomb, not a model"):
        open_file(path)


def test_an_array_that_is_not_there_is_a_bomb_too(open_file: Open, tmp_path: Path):
    import tf_keras

    _model(tf_keras).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.create_dataset("huge", (1 << 30,), "f4", chunks=(1 << 20,))

    with pytest.raises(ArtifactError, match=r"unpacks to 4,294,967,\d+: that is a bomb"):
        open_file(tmp_path / "m.h5")


def test_a_link_out_of_the_file_is_refused(open_file: Open, tmp_path: Path):
    import tf_keras

    _model(tf_keras).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")

    with pytest.raises(ArtifactError, match="elsewhere is a link to another file"):
        open_file(tmp_path / "m.h5")


def test_damaged_files_are_said_to_be(open_file: Open, tmp_path: Path):
    import keras

    _model(keras).save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    for name, data, said in (
        ("cut.keras", whole[: len(whole) // 2], "is damaged, or no Keras file: its end is missing"),
        ("empty.h5", b"", "is damaged: it is empty"),
        ("text.h5", b"no model at all", "is damaged, or no Keras file: it begins with b'no model'"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArtifactError, match=said):
            open_file(tmp_path / name)
    with pytest.raises(ArtifactError, match=r"nowhere.keras is missing"):
        open_file(tmp_path / "nowhere.keras")


def test_a_file_of_weights_is_no_model(open_file: Open, tmp_path: Path):
    import keras

    _model(keras).save_weights(tmp_path / "m.weights.h5")

    with pytest.raises(ArtifactError, match="holds weights only, no model"):
        open_file(tmp_path / "m.weights.h5")


def test_a_keras_model_in_float64_is_refused_with_its_layer(open_file: Open, tmp_path: Path):
    import keras

    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(3, name="wide", dtype="float64")(x)
    keras.Model(x, y).save(tmp_path / "m.keras")

    with pytest.raises(ConversionError, match="layer 'wide' computes in float64"):
        open_file(tmp_path / "m.keras")


def test_a_float_file_comes_in_and_a_quantized_one_does_not(open_file: Open, folders: Path, tmp_path: Path):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folders / "one"))
    (tmp_path / "float.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"x": X[i : i + 1]} for i in range(5))
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    converter.representative_dataset = None
    converter.target_spec.supported_types = [tf.float16]
    (tmp_path / "half.tflite").write_bytes(converter.convert())

    foreign = open_file(tmp_path / "float.tflite")

    assert (foreign.kind, foreign.saved_model, foreign.float_file) == ("tflite", None, tmp_path / "float.tflite")
    assert ([info.name for info in foreign.inputs], foreign.batch) == (["x"], None)
    with pytest.raises(ConversionError, match=r"int8.tflite is quantized already: \d+ of int8"):
        open_file(tmp_path / "int8.tflite")
    with pytest.raises(ConversionError, match=r"half.tflite is quantized already: 1 of float16"):
        open_file(tmp_path / "half.tflite")
    with pytest.raises(UsageError, match=r"has no signature 'other'; it has serving_default"):
        open_file(tmp_path / "float.tflite", signature="other")


def test_a_file_of_no_known_ending_is_refused(open_file: Open, tmp_path: Path):
    (tmp_path / "m.pt").write_bytes(b"x")

    with pytest.raises(ArtifactError, match=r"its ending is .pt; give a .keras, .h5, .hdf5, .tflite file"):
        open_file(tmp_path / "m.pt")


def test_memory_is_bounded_only_while_a_model_is_loaded(tmp_path: Path):
    import resource

    from mltool.conversion.sources.bounds import LEAST_BYTES, bounded_memory

    (tmp_path / "m.h5").write_bytes(bytes(1000))
    before = resource.getrlimit(resource.RLIMIT_DATA)

    with bounded_memory(tmp_path / "m.h5"):
        with pytest.raises(MemoryError):
            np.empty(2 * LEAST_BYTES, np.uint8)
        np.empty(LEAST_BYTES // 2, np.uint8)

    assert resource.getrlimit(resource.RLIMIT_DATA) == before
