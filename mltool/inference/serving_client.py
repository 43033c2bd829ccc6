"""A model behind the REST API of TensorFlow Serving as a predictor.

The API: https://www.tensorflow.org/tfx/serving/api_rest (GET .../metadata, POST ...:predict in its columnar form). NaN
is written as `NaN`, which Python and TensorFlow Serving read and write though JSON has it not.
"""

import http.client
import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from mltool.errors import ArtifactError, MachineError, UsageError
from mltool.inference.predictor import (
    BATCH_SIZE,
    Array,
    BasePredictor,
    Batch,
    TensorInfo,
    concatenated,
    tensor_info,
)

TIMEOUT_SECONDS = 60.0
"""How long one answer may take."""

MOST_NUMBERS = 250_000
"""Numbers in one request: about 5 MB of JSON."""

_FORM = re.compile(
    r"(?P<model>https?://[^/]+(/.*)?/v1/models/[^/:]+(/(versions|labels)/[^/:]+)?)(:predict|/metadata|/)?"
)
_SHOWN = 300
"""Characters of a server's own words that a message shows."""

_DTYPES = {
    "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16", "DT_BFLOAT16": "bfloat16",
    "DT_INT8": "int8", "DT_INT16": "int16", "DT_INT32": "int32", "DT_INT64": "int64",
    "DT_UINT8": "uint8", "DT_UINT16": "uint16", "DT_UINT32": "uint32", "DT_UINT64": "uint64",
    "DT_STRING": "string", "DT_BOOL": "bool",
}  # fmt: skip
"""Types of tensorflow/core/framework/types.proto; all others are refused."""


class ServingPredictor(BasePredictor):
    """Asks a server for one signature of a model.

    Args:
        url: such as `http://host:8501/v1/models/NAME`, with `/versions/N` for one version.
        signature: its key.

    Raises:
        UsageError: if the address is of another form.
        MachineError: if the server cannot be reached, or does not answer in time.
        ArtifactError: if it has no such model or signature, or answers as no TensorFlow Serving does.
    """

    def __init__(self, url: str, signature: str = "serving_default") -> None:
        found = _FORM.fullmatch(url)
        if found is None:
            raise UsageError(f"{url} is no address of a model", "write http://host:8501/v1/models/NAME")
        self._url, self._signature = found["model"], signature
        self._opener = _opener(self._url)
        document = self._ask("/metadata")
        inputs, outputs = self._tensors(document)
        self.inputs, self.outputs = inputs, outputs
        spec = document.get("model_spec") or {}
        version = f" version {spec['version']}" if spec.get("version") else ""
        self.runtime = f"TensorFlow Serving, {spec.get('name', 'a model')}{version}"

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        numbers = max(1, sum(prod(batch[name].shape[1:]) for name in batch))
        size = max(1, min(BATCH_SIZE, MOST_NUMBERS // numbers))
        parts = []
        for part in self.parts(batch, size):
            inputs = {name: _to_json(array, self.inputs[name]) for name, array in part.items()}
            answer = self._ask(":predict", {"signature_name": self._signature, "inputs": inputs})
            parts.append(self._outputs(answer, len(next(iter(part.values())))))
        return concatenated(parts)

    def _tensors(self, document: Mapping[str, Any]) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
        try:
            signatures = document["metadata"]["signature_def"]["signature_def"]
            known = ", ".join(sorted(signatures)) or "none"
            if self._signature not in signatures:
                raise ArtifactError(f"{self._url} has no signature {self._signature!r}", f"it has {known}")
            found = signatures[self._signature]
            inputs, outputs = (_infos(self._url, found.get(key) or {}) for key in ("inputs", "outputs"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"{self._url}/metadata answers as no TensorFlow Serving does: {type(error).__name__} {error}"
            raise ArtifactError(message, "is it the REST port (8501)?") from error
        return inputs, outputs

    def _outputs(self, answer: Mapping[str, Any], samples: int) -> dict[str, Array]:
        """The outputs by name; a server leaves out the name of the only one."""
        given = answer.get("outputs", {})
        by_name = given if isinstance(given, dict) else {next(iter(self.outputs)): given}
        arrays: dict[str, Array] = {}
        for name, info in self.outputs.items():
            try:
                array = np.asarray(by_name[name], dtype=np.float32)
            except (KeyError, TypeError, ValueError) as error:
                message = f"{self._url} gave no numbers for the output {name!r}"
                raise ArtifactError(message, "its metadata say that it would") from error
            wanted = (samples, *info.shape)
            if array.ndim != len(wanted) or any(w not in (None, f) for w, f in zip(wanted, array.shape, strict=True)):
                raise ArtifactError(f"{self._url} gave {name!r} of shape {array.shape} for {samples} samples")
            arrays[name] = array
        return arrays

    def _ask(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request; the answer is a JSON object."""
        url = self._url + what
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  http(s) alone
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = _words_of(error)
            if error.code >= 500:
                raise MachineError(f"{url} answers {error.code}: {said}", "see the log of the server") from error
            raise ArtifactError(f"{url} answers {error.code}: {said}", "is it this model, and its version?") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(url, error) from error
        try:
            document = json.loads(text)
        except ValueError as error:
            message = f"{url} answers as no TensorFlow Serving does: {_short(text)}"
            raise ArtifactError(message, "is it the REST port (8501)?") from error
        if not isinstance(document, dict):
            raise ArtifactError(f"{url} answers as no TensorFlow Serving does: {_short(text)}")
        return document


def _unreachable(url: str, error: Exception) -> MachineError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return MachineError(f"{url} did not answer within {TIMEOUT_SECONDS:g} s", "see the log of the server")
    said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return MachineError(f"{url} cannot be reached: {said}", "does the server run, and is the port that of REST (8501)?")


def _words_of(error: urllib.error.HTTPError) -> str:
    """What the server says of an error: `{"error": "..."}`, or the page as it is."""
    try:
        text = error.read()
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        return str(json.loads(text)["error"])[:_SHOWN]
    except (ValueError, KeyError, TypeError):
        return _short(text) or str(error.reason)


def _short(text: bytes) -> str:
    return " ".join(text.decode("utf-8", "replace").split())[:_SHOWN]


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What opens addresses: this machine is never asked by a proxy, others as the environment has it."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost" or host.endswith(".localhost")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_loopback else []))


def _infos(url: str, tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    if not tensors:
        raise ValueError("without tensors")
    infos = {}
    for name, tensor in tensors.items():
        shape = tensor.get("tensor_shape") or {}
        sizes = None if shape.get("unknown_rank") else [int(dim["size"]) for dim in shape.get("dim") or []]
        dtype = _DTYPES.get(tensor["dtype"], "variant")
        infos[name] = tensor_info(url, name, dtype, sizes)
    return infos


def _to_json(array: Array, info: TensorInfo) -> list[Any]:
    """Numbers as the server's type wants them, text as it is."""
    if info.dtype.startswith(("int", "uint")):
        array = array.astype(np.int64)
    elif info.dtype == "bool":
        array = array.astype(bool)
    found: list[Any] = array.tolist()
    return found
