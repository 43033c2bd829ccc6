"""Numbers of a classification: precision, recall and F1 of every class, and what is taken for what."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ClassRow:
    """How well one class is told.

    Attributes:
        label: of the class.
        samples: of it in the test split; pixels, where every pixel has a class.
        precision: share of the answers of this class that are right; None where there are none.
        recall: share of its samples that were answered right; None where it has none.
        f1: harmonic mean of the two; None where one of them is.
    """

    label: str
    samples: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_rows(counts: Array, labels: tuple[str, ...]) -> list[ClassRow]:
    """Precision, recall and F1 of every class (van Rijsbergen, "Information Retrieval", 1979).

    Args:
        counts: of `evaluation/metrics.py: confusion_matrix`.
        labels: of the classes.
    """
    return _rows(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1), labels)


def label_rows(truth: Array, answers: Array, labels: tuple[str, ...]) -> list[ClassRow]:
    """Precision, recall and F1 of every label, where a sample may have several.

    Args:
        truth: [samples, labels] of 0 and 1.
        answers: likewise.
        labels: their names.
    """
    there, answered = truth.astype(bool), answers.astype(bool)
    return _rows((there & answered).sum(axis=0), answered.sum(axis=0), there.sum(axis=0), labels)


def _rows(hits: Array, answers: Array, samples: Array, labels: tuple[str, ...]) -> list[ClassRow]:
    """A row for every class, of its right answers, its answers and its samples."""
    rows = []
    for label, right, answered, there in zip(labels, hits, answers, samples, strict=True):
        precision = float(right / answered) if answered else None
        recall = float(right / there) if there else None
        both = precision is not None and recall is not None
        f1 = (2 * right / (answered + there)) if both else None
        rows.append(ClassRow(label, int(there), precision, recall, None if f1 is None else float(f1)))
    return rows


@dataclass(frozen=True)
class Mistake:
    """A class that was answered for another.

    Attributes:
        truth: the class of the samples.
        answer: the class that was answered.
        count: how often.
        samples: of the true class in the test split.
    """

    truth: str
    answer: str
    count: int
    samples: int


def worst_mistakes(counts: Array, labels: tuple[str, ...], most: int = 3) -> list[Mistake]:
    """The pairs of classes that are confused most often, the greatest share of the true class first.

    Args:
        counts: of `evaluation/metrics.py: confusion_matrix`.
        labels: of the classes.
        most: pairs at most.
    """
    there = counts.sum(axis=1)
    wrong = np.where(np.eye(len(labels), dtype=bool), 0, counts) / np.maximum(there, 1)[:, None]
    order = np.argsort(-wrong.reshape(-1), kind="stable")[:most]
    pairs = [divmod(int(place), len(labels)) for place in order]
    return [
        Mistake(labels[row], labels[column], int(counts[row, column]), int(there[row]))
        for row, column in pairs
        if wrong[row, column] > 0
    ]
