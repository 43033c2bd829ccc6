"""The REST API of TensorFlow Serving over a SavedModel, on a loopback port: what it asks and answers, as documented.

https://www.tensorflow.org/tfx/serving/api_rest; tensorflow_model_server itself is in no Python package.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_TYPES = {tf.float32: "DT_FLOAT", tf.string: "DT_STRING", tf.int32: "DT_INT32", tf.int64: "DT_INT64"}


def _tensors(specs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "dtype": _TYPES[spec.dtype],
            "tensor_shape": {
                "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape.as_list()],
                "unknown_rank": False,
            },
            "name": f"{name}:0",
        }
        for name, spec in specs.items()
    }


class Served:
    """One model; `requests` are the paths and sizes that were asked for, `broken` what is answered instead."""

    def __init__(self, saved_model: Path) -> None:
        self._loaded = tf.saved_model.load(str(saved_model))
        self._signature = self._loaded.signatures["serving_default"]
        self.requests: list[tuple[str, int]] = []
        self.broken: tuple[int, bytes] | None = None
        self.url = ""

    def metadata(self) -> dict[str, Any]:
        signature = {
            "inputs": _tensors(self._signature.structured_input_signature[1]),
            "outputs": _tensors(self._signature.structured_outputs),
            "method_name": "tensorflow/serving/predict",
        }
        return {
            "model_spec": {"name": "digits", "signature_name": "", "version": "1"},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        }

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        specs = self._signature.structured_input_signature[1]
        tensors = {name: tf.constant(body["inputs"][name], specs[name].dtype) for name in specs}
        self.requests.append((body["signature_name"], len(next(iter(tensors.values())))))
        outputs = {name: value.numpy().tolist() for name, value in self._signature(**tensors).items()}
        return {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs}


@contextmanager
def serving(saved_model: Path) -> Iterator[Served]:
    """Serves a SavedModel while the block runs."""
    served = Served(saved_model)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in ("/v1/models/digits/metadata", "/v1/models/digits/versions/1/metadata")
            self._answer(200, served.metadata()) if known else self._answer(404, {"error": "Servable not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._answer(200, served.predict(body))
            except Exception as error:  # as the server answers what TensorFlow refuses
                self._answer(400, {"error": str(error)})

        def _answer(self, code: int, document: dict[str, Any]) -> None:
            code, text = served.broken or (code, json.dumps(document).encode())
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1/models/digits"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def save_columns(folder: Path) -> Path:
    """A model of a text and a number, of which the number may be missing: its length, and whether it was NaN."""

    class Columns(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, 1], tf.string, "word"), tf.TensorSpec([None], tf.float32, "x")]
        )
        def __call__(self, word: Any, x: Any) -> dict[str, Any]:
            length = tf.cast(tf.strings.length(word, unit="UTF8_CHAR"), tf.float32)
            return {"length": length, "nan": tf.where(tf.math.is_nan(x), tf.ones_like(x), x)}

    model = Columns()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.__call__})
    return folder


WORDS = np.array([["a"], ["zwölf"], [""]])
