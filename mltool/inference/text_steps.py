"""Steps that take text, in numpy: what LiteRT cannot do, done outside of the file as Keras does it inside.

A test holds every step equal to Keras' layer. The words lie in a JSON file beside the `.tflite`, so that a browser or a
phone can do the same.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import ArtifactError, DataError
from mltool.runs.input_schema import PreprocessStep

Array = np.ndarray[Any, Any]

UNKNOWN = "[UNK]"
"""Keras' token for what is not in a vocabulary; it stands where such words are counted."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a step.

    Attributes:
        tokens: in the order of their numbers, Keras' own tokens ("" and `[UNK]`) among them.
        idf_weights: float32 [tokens], for `output_mode: tf_idf`; else None.
    """

    tokens: Sequence[str]
    idf_weights: Array | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is written beside a file."""
        weights = None if self.idf_weights is None else [float(weight) for weight in self.idf_weights]
        return {"tokens": list(self.tokens), "idf_weights": weights}


def load_vocabulary(path: Path) -> Vocabulary:
    """Reads the words of a step.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        tokens = [str(token) for token in document["tokens"]]
        weights = document["idf_weights"]
        return Vocabulary(tokens, None if weights is None else np.asarray(weights, np.float32))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is missing or damaged: {error}", "copy the whole lite/ folder") from error


class TextStep:
    """One step, ready to run.

    Args:
        step: as `input.json` describes it.
        vocabulary: its words.

    Attributes:
        name: of the layer.
        input: of the model that it takes.
        sample_shape: of that input.

    Raises:
        ArtifactError: if it cannot be done here; see `reason_against`.
    """

    def __init__(self, step: PreprocessStep, vocabulary: Vocabulary) -> None:
        if reason := reason_against(step):
            raise ArtifactError(f"the step {step.name!r} {reason}")
        self.name, self.input = step.name, step.input
        self._tokenize = _TOKENIZERS[step.class_name](step.arguments)
        self._mode = step.arguments.get("output_mode", "int")
        self._length = step.arguments.get("output_sequence_length")
        self._numbers = {token: number for number, token in enumerate(vocabulary.tokens)}
        self._unknown = self._numbers.get(UNKNOWN)
        size = len(vocabulary.tokens)
        padded = step.arguments.get("pad_to_max_tokens") and step.arguments.get("max_tokens")
        # Keras counts everything but the mask.
        self._mask = None if self._mode == "int" else step.arguments.get("mask_token")
        self._depth = int(padded) if padded else size
        self._weights = vocabulary.idf_weights
        self._is_text = step.class_name == "TextVectorization"
        self.sample_shape: tuple[int, ...] = () if self._is_text else (1,)

    def __call__(self, values: Array) -> Array:
        """Runs the step.

        Args:
            values: text, [samples] or [samples, 1].

        Returns:
            int32 [samples, length] for `int`, else float32 [samples, tokens].

        Raises:
            DataError: for a word that is not known, where the step has no place for such words.
        """
        rows = [
            [self._number(token) for token in self._tokenize(str(value)) if token != self._mask]
            for value in values.reshape(-1)
        ]
        if self._mode == "int":
            return self._padded(rows)
        counts = np.zeros((len(rows), self._depth), np.float32)
        for row, numbers in zip(counts, rows, strict=True):
            np.add.at(row, numbers, 1.0)
        if self._mode in ("multi_hot", "one_hot"):
            return np.minimum(counts, 1.0)
        if self._mode == "tf_idf" and self._weights is not None:
            counts[:, : len(self._weights)] *= self._weights
        return counts

    def _number(self, token: str) -> int:
        number = self._numbers.get(token, self._unknown)
        if number is None:
            raise DataError(f"{self.input}: {token!r} is not in the vocabulary", "num_oov_indices: 1 makes room for it")
        return number

    def _padded(self, rows: Sequence[Sequence[int]]) -> Array:
        if not self._is_text:
            return np.asarray(rows, np.int32)
        length = self._length or max((len(row) for row in rows), default=0)
        padded = np.zeros((len(rows), length), np.int32)
        for target, row in zip(padded, rows, strict=True):
            kept = row[:length]
            target[: len(kept)] = kept
        return padded


def reason_against(step: PreprocessStep) -> str | None:
    """Why a step that takes text cannot be done outside of a file; None if it can."""
    arguments = step.arguments
    if step.class_name not in _TOKENIZERS:
        return f"is a {step.class_name}: only {' and '.join(_TOKENIZERS)} can be done outside of a .tflite file"
    if step.vocabulary is None or not step.input:
        return "takes text that other layers made"
    return _unfit_argument(step.class_name, arguments)


def _unfit_argument(class_name: str, arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("num_oov_indices", 1) not in (0, 1):
        return "has more than one place for unknown words (num_oov_indices)"
    if arguments.get("invert"):
        return "turns numbers into text"
    if class_name == "TextVectorization" and arguments.get("output_mode") == "int":
        length = arguments.get("output_sequence_length")
        return None if length else "gives as many numbers as a text has words: set output_sequence_length"
    for key, known in (("standardize", _STANDARDIZE), ("split", _SPLIT)):
        if key in arguments and arguments[key] not in known:
            return f"has {key}: {arguments[key]}"
    return None


def _one_token(arguments: Mapping[str, Any]) -> Callable[[str], list[str]]:
    return lambda value: [value]


# Keras' own list (keras/src/layers/preprocessing/text_vectorization.py, `strip_punctuation`).
_PUNCTUATION = re.compile(r"""[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']""")
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
"""TensorFlow's `strings.lower` knows ASCII alone, unless it is told the encoding."""

_STANDARDIZE: dict[str | None, Callable[[str], str]] = {
    "lower_and_strip_punctuation": lambda text: _PUNCTUATION.sub("", text.translate(_LOWER)),
    "lower": lambda text: text.translate(_LOWER),
    "strip_punctuation": lambda text: _PUNCTUATION.sub("", text),
    None: lambda text: text,
}
_SPLIT: dict[str, Callable[[str], list[str]]] = {
    "whitespace": lambda text: [word for word in re.split(r"[ \t\n\v\f\r]+", text) if word],
    "character": list,
}


def _words(arguments: Mapping[str, Any]) -> Callable[[str], list[str]]:
    """What `TextVectorization` makes of a text: standardize, split, n-grams."""
    standardize = _STANDARDIZE[arguments.get("standardize", "lower_and_strip_punctuation")]
    split = _SPLIT[arguments.get("split", "whitespace")]
    ngrams = arguments.get("ngrams")
    lengths = range(1, ngrams + 1) if isinstance(ngrams, int) else ngrams

    def tokenize(text: str) -> list[str]:
        words = split(standardize(text))
        if not lengths:
            return words
        return [" ".join(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1)]

    return tokenize


_TOKENIZERS = {"StringLookup": _one_token, "TextVectorization": _words}
"""The layers that are done here, and how each makes tokens of a value."""
