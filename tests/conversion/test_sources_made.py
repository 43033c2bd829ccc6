"""Models that a function of the user's returns: of JAX here, of PyTorch where its converter is installed."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion.engines.converter import convert_saved_model
from mltool.conversion.sources.foreign import Foreign, make_foreign
from mltool.errors import ConversionError, MltoolError, UsageError

pytestmark = pytest.mark.slow

Make = Callable[..., Foreign]

X = np.random.default_rng(3).normal(size=(6, 8, 8, 1)).astype("float32")

JAX = """
import jax, numpy as np
from shared.widths import WIDTH

numbers = np.random.default_rng(0)
PARAMETERS = {
    "kernel": numbers.normal(size=(3, 3, 1, WIDTH)).astype("float32"),
    "weights": numbers.normal(0, 0.1, (64 * WIDTH, 10)).astype("float32"),
    "table": numbers.normal(size=(50, 10)).astype("float32"),
}


def apply(parameters, image):
    names = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(image, parameters["kernel"], (1, 1), "SAME", dimension_numbers=names)
    return jax.nn.softmax(jax.nn.gelu(y).reshape(image.shape[0], -1) @ parameters["weights"])


def with_parameters():
    print("told by the user's code")
    return apply, PARAMETERS


def closed():
    return lambda image: {"probabilities": apply(PARAMETERS, image)}


def with_samples():
    return apply, PARAMETERS, np.ones((2, 8, 8, 1), "float32")


def two_inputs():
    table = jax.numpy.asarray(PARAMETERS["table"])
    return lambda ids, x: (table[ids].mean(1) + x, x.sum(1, keepdims=True))


def branches():
    return lambda x: x if x.sum() > 0 else -x


def wide():
    return lambda x: np.asarray(x, "float64")


def raises():
    raise ValueError("no weights")


def number():
    return 3
"""

TORCH = """
import torch
from shared.widths import WIDTH


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = torch.nn.Conv2d(1, WIDTH, 3), torch.nn.BatchNorm2d(WIDTH)
        self.head = torch.nn.Linear(36 * WIDTH, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.stem(x))).flatten(1))


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = torch.nn.Embedding(50, 4), torch.nn.Linear(4, 3)

    def forward(self, ids, x):
        y = self.table(ids).mean(1) + x
        return {"scores": self.head(y), "norm": y.sum(1, keepdim=True)}


def make():
    torch.manual_seed(0)
    return Net().eval()


def with_samples():
    return make(), torch.ones(2, 1, 8, 8)


def two():
    return Two().eval()


def training():
    return Net()


def double():
    return make().double()


def a_class():
    return Net
"""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as child:
        yield child


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's modules, one of which imports from a package beside it."""
    root = tmp_path_factory.mktemp("user")
    (root / "jax_nets.py").write_text(JAX)
    (root / "torch_nets.py").write_text(TORCH)
    (root / "shared").mkdir()
    (root / "shared/__init__.py").touch()
    (root / "shared/widths.py").write_text("WIDTH = 4\n")
    (root / "shared/nets.py").write_text("from .widths import WIDTH\n\n\ndef make():\n    return lambda x: x * WIDTH\n")
    return root


@pytest.fixture
def make(child: Child, folder: Path, tmp_path: Path) -> Make:
    """Makes a model of the function that a reference names."""

    def made(kind: Any, reference: str, **samples: np.ndarray) -> Foreign:
        scratch = tmp_path / reference.replace(":", "_")
        scratch.mkdir(exist_ok=True)
        return make_foreign(kind, reference, scratch, child=child, samples=samples or None, folder=folder)

    return made


def _user_module(folder: Path, name: str) -> Any:
    """The user's module, imported here to say what is right."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def _run(path: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    answers: dict[str, np.ndarray] = Interpreter(str(path)).get_signature_runner()(**inputs)
    return answers


def _converted(foreign: Foreign, path: Path, quantize: str = "none", **samples: np.ndarray) -> Path:
    np.savez(path.with_suffix(".npz"), **samples)
    convert_saved_model(
        saved_model=str(foreign.saved_model),
        signature=foreign.signature,
        output=str(path),
        quantize=quantize,
        io="float32",
        batch=1,
        representative=str(path.with_suffix(".npz")),
        keep_float=[],
        layer_names=[],
    )
    return path


@pytest.mark.parametrize(
    ("function", "output"),
    [
        pytest.param("with_parameters", "output", id="callable and parameters"),
        pytest.param("closed", "probabilities", id="callable with its parameters inside"),
    ],
)
def test_a_jax_function_becomes_a_flatbuffer_of_builtin_operators(
    make: Make, folder: Path, tmp_path: Path, function: str, output: str
):
    user = _user_module(folder, "jax_nets")
    expected = np.asarray(user.apply(user.PARAMETERS, X))

    foreign = make("jax", f"jax_nets:{function}", image=X)

    assert (foreign.kind, foreign.name, foreign.batch, foreign.float_file) == ("jax", function, 1, None)
    assert [(info.name, info.dtype, info.shape) for info in foreign.inputs] == [("image", "float32", (8, 8, 1))]
    assert [info.name for info in foreign.outputs] == [output]
    assert foreign.difference is not None
    assert foreign.difference <= 1e-5
    for scheme, allowed in (("none", 1e-5), ("int8", 0.05)):
        file = _converted(foreign, tmp_path / f"{scheme}.tflite", scheme, image=np.repeat(X, 10, axis=0))
        found = np.concatenate([_run(file, image=X[i : i + 1])[output] for i in range(len(X))])
        np.testing.assert_allclose(found, expected, atol=allowed)


def test_sample_inputs_may_come_from_the_function(make: Make):
    assert make("jax", "jax_nets:with_samples").inputs[0].name == "image"  # as the callable calls it
    with pytest.raises(UsageError, match=r"sample inputs of shape \(8, 8, 1\), the data's 'image' are \(8, 8, 3\)"):
        make("jax", "jax_nets:with_samples", image=np.repeat(X, 3, axis=3))
    with pytest.raises(UsageError, match=r"jax_nets:closed returns no sample inputs, and there are no data"):
        make("jax", "jax_nets:closed")


def test_several_inputs_of_jax_go_by_name(make: Make, folder: Path, tmp_path: Path):
    ids = np.random.default_rng(0).integers(0, 50, (6, 7)).astype("int32")
    x = np.random.default_rng(1).normal(size=(6, 10)).astype("float32")
    table = _user_module(folder, "jax_nets").PARAMETERS["table"]

    foreign = make("jax", "jax_nets:two_inputs", x=x, ids=ids)  # in another order than the callable has them

    found = _run(_converted(foreign, tmp_path / "f.tflite", x=x, ids=ids), x=x[:1], ids=ids[:1])
    np.testing.assert_allclose(found["output_0"], table[ids[:1]].mean(1) + x[:1], atol=1e-6)
    np.testing.assert_allclose(found["output_1"], x[:1].sum(1, keepdims=True), atol=1e-5)
    with pytest.raises(UsageError, match=r"takes ids, x; the inputs are x, words; give them the same names"):
        make("jax", "jax_nets:two_inputs", x=x, words=ids)


def test_a_module_of_a_package_finds_the_rest_of_it(make: Make):
    assert make("jax", "shared.nets:make", x=X[:, 0, :, 0]).name == "make"


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("jax_nets:clsed", UsageError, r"--from jax_nets:clsed: jax_nets.py has no function 'clsed'; did you mean"),
        ("jax_net:closed", UsageError, r"--from jax_net:closed: no module 'jax_net' lies in .* or is installed"),
        ("jax_nets", UsageError, r"--from jax_nets: must be module:function \(got 'jax_nets'\)"),
        ("jax_nets:raises", UsageError, r"jax_nets:raises raised ValueError: no weights; see line \d+ of jax_nets.py"),
        ("jax_nets:number", UsageError, r"jax_nets:number returned int; return a callable of the inputs"),
        ("jax_nets:branches", ConversionError, r"jax2tf cannot convert .*TracerBoolConversionError.* see line \d+"),
        ("jax_nets:wide", ConversionError, r"'output' of the callable of jax_nets:wide is float64"),
        ("jax_nets:closed", ConversionError, r"does not take x \(1, 8\) of float32: .*; see line \d+ of jax_nets.py"),
    ],
)
def test_what_a_jax_function_does_wrong_is_said(make: Make, reference: str, error: type[MltoolError], said: str):
    with pytest.raises(error, match=said):
        make("jax", reference, x=X[:, 0, :, 0])


torch_only = pytest.mark.skipif(not importlib.util.find_spec("litert_torch"), reason="litert-torch is not installed")
IMAGES = X.transpose(0, 3, 1, 2)


@torch_only
def test_a_torch_module_becomes_a_float_file(make: Make, folder: Path):
    import torch

    foreign = make("torch", "torch_nets:make", image=IMAGES)

    assert (foreign.kind, foreign.batch, foreign.saved_model) == ("torch", 1, None)
    assert [(info.name, info.shape) for info in foreign.inputs] == [("image", (1, 8, 8))]  # the data's name for it
    assert foreign.difference is not None
    assert foreign.difference <= 1e-5
    assert foreign.float_file is not None
    with torch.no_grad():
        expected = _user_module(folder, "torch_nets").make()(torch.from_numpy(IMAGES[:1])).numpy()
    np.testing.assert_allclose(_run(foreign.float_file, image=IMAGES[:1])["output"], expected, atol=1e-5)


@torch_only
def test_several_inputs_of_torch_go_by_name(make: Make):
    ids, x = np.ones((3, 6), "int64"), np.ones((3, 4), "float32")

    foreign = make("torch", "torch_nets:two", x=x, ids=ids)

    assert {(info.name, info.dtype) for info in foreign.inputs} == {("ids", "int32"), ("x", "float32")}
    assert {info.name for info in foreign.outputs} == {"scores", "norm"}


@torch_only
@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        ("training", UsageError, r"is in training mode: .*; return module.eval\(\)"),
        ("double", ConversionError, r"'stem.weight' of the module of torch_nets:double is float64"),
        ("a_class", UsageError, r"torch_nets:a_class returned the class Net; .*: call it"),
    ],
)
def test_what_a_torch_function_does_wrong_is_said(make: Make, function: str, error: type[MltoolError], said: str):
    with pytest.raises(error, match=said):
        make("torch", f"torch_nets:{function}", image=IMAGES)


@torch_only
def test_nothing_is_turned_round_for_torch(make: Make):
    with pytest.raises(ConversionError, match=r"does not take image \(1, 8, 8, 1\).*'image' has its channels last"):
        make("torch", "torch_nets:make", image=X)


@pytest.mark.skipif(bool(importlib.util.find_spec("litert_torch")), reason="litert-torch is installed")
def test_without_its_converter_torch_says_how_to_get_it(make: Make):
    from mltool.errors import MissingExtraError

    with pytest.raises(MissingExtraError, match=r"pip install 'mltool-tf\[torch\]'"):
        make("torch", "torch_nets:make", image=IMAGES)
