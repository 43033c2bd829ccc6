"""An endpoint of TensorFlow Serving answers as the SavedModel that it serves, or it is said what is wrong."""

import numpy as np
import pytest
from serving import WORDS, save_columns, serving

from mltool.errors import ArtifactError, MachineError, UsageError
from mltool.inference import serving_client
from mltool.inference.open import open_predictor
from mltool.inference.saved_model import SavedModelPredictor
from mltool.inference.serving_client import ServingPredictor


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    with serving(save_columns(tmp_path_factory.mktemp("served") / "columns")) as served:
        yield served


@pytest.fixture(autouse=True)
def mended(columns):
    yield
    columns.broken = None


BATCH = {"word": WORDS, "x": np.array([0.1, np.nan, -3e-8], np.float32)}


def test_text_numbers_and_nan_come_through_as_they_are(columns):
    with open_predictor(columns.url) as predictor:
        found = predictor.predict(BATCH)
    np.testing.assert_array_equal(found["length"], [[1], [5], [0]])
    np.testing.assert_array_equal(found["nan"], np.array([0.1, 1.0, -3e-8], np.float32))  # not a bit is lost
    assert predictor.inputs["word"].shape == (1,)
    assert (predictor.inputs["word"].dtype, predictor.inputs["x"].dtype) == ("string", "float32")
    assert predictor.runtime == "TensorFlow Serving, digits version 1"


def test_many_samples_go_in_several_requests(columns, monkeypatch):
    monkeypatch.setattr(serving_client, "MOST_NUMBERS", 400)  # two numbers a sample
    columns.requests.clear()
    many = {"word": np.repeat(WORDS, 150, axis=0), "x": np.arange(450, dtype=np.float32)}
    found = ServingPredictor(columns.url).predict(many)
    np.testing.assert_array_equal(found["nan"], many["x"])
    assert columns.requests == [("serving_default", 200), ("serving_default", 200), ("serving_default", 50)]


@pytest.mark.parametrize("ending", ["", "/", ":predict", "/metadata", "/versions/1", "/versions/1:predict"])
def test_the_address_may_be_written_as_people_copy_it(ending, columns):
    assert ServingPredictor(columns.url + ending).predict(BATCH)["length"].shape == (3, 1)


@pytest.mark.parametrize("address", ["http://host:8501", "http://host/v1/models/", "http://host/v1/models/a:classify"])
def test_another_address_is_refused_before_anything_is_asked(address):
    with pytest.raises(UsageError, match=r"is no address of a model; write http://host:8501/v1/models/NAME"):
        ServingPredictor(address)


def test_no_server_is_exit_10():
    import socket

    with socket.socket() as taken:  # bound and not listening: nobody else can be there
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(MachineError, match=r"cannot be reached: Connection refused; does the server run") as found:
            ServingPredictor(f"http://127.0.0.1:{taken.getsockname()[1]}/v1/models/m")
    assert found.value.exit_code == 10


def test_no_answer_in_time_is_exit_10(monkeypatch):
    import socket

    monkeypatch.setattr(serving_client, "TIMEOUT_SECONDS", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(MachineError, match=r"did not answer within 0\.05 s"):
            ServingPredictor(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/models/m")


def test_a_loopback_address_is_never_asked_by_a_proxy(columns, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert ServingPredictor(columns.url).outputs


def test_another_model_is_exit_5_with_the_words_of_the_server(columns):
    with pytest.raises(ArtifactError, match="answers 404: Servable not found; is it this model, and its version") as at:
        ServingPredictor(columns.url.replace("digits", "other"))
    assert at.value.exit_code == 5


BROKEN = {
    "no JSON": (200, b"<html>hello</html>", ArtifactError, "answers as no TensorFlow Serving does: <html>hello</html>"),
    "a list": (200, b"[1]", ArtifactError, r"answers as no TensorFlow Serving does: \[1\]"),
    "no metadata": (200, b"{}", ArtifactError, "answers as no TensorFlow Serving does: KeyError 'metadata'; is it the"),
    "a flaw of the server": (
        503,
        b'{"error": "out of memory"}',
        MachineError,
        "answers 503: out of memory; see the log",
    ),
    "another signature": (
        200,
        b'{"metadata": {"signature_def": {"signature_def": {"train": {}}}}}',
        ArtifactError,
        "has no signature 'serving_default'; it has train",
    ),
}


@pytest.mark.parametrize(("code", "text", "kind", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_serving_is_told(code, text, kind, message, columns):
    columns.broken = (code, text)
    with pytest.raises(kind, match=message):
        ServingPredictor(columns.url)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"outputs": {"length": [[1], [5], [0]]}}', "gave no numbers for the output 'nan'"),
        (b'{"outputs": {"length": [[1]], "nan": [1]}}', r"gave .(length|nan). of shape \(1, ?1?\) for 3 samples"),
        (b'{"predictions": []}', "gave no numbers for the output .(length|nan)."),
    ],
    ids=["an output less", "a sample less", "another form"],
)
def test_an_answer_that_is_not_as_the_metadata_say(text, message, columns):
    predictor = ServingPredictor(columns.url)
    columns.broken = (200, text)
    with pytest.raises(ArtifactError, match=message):
        predictor.predict(BATCH)


def test_an_answer_is_that_of_the_saved_model(columns, tmp_path):
    here = SavedModelPredictor(save_columns(tmp_path / "columns")).predict(BATCH)
    there = ServingPredictor(columns.url).predict(BATCH)
    assert set(here) == set(there)
    for name, values in here.items():
        np.testing.assert_array_equal(values, there[name])
