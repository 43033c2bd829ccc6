"""Limits against measurements: a pure function, the one place that says kept or broken."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mltool.errors import Message
from mltool.evaluation.agreement import Agreement, worst_of
from mltool.spec.limits import LimitsSpec


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How close an artifact's outputs must stay to the model's.

    Attributes:
        max_error: share of the reference's output range, of all samples but one in a thousand.
        mean_error: the same, for the mean.
        same_answer: least share of samples with the same answer.
    """

    max_error: float
    mean_error: float
    same_answer: float


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of an artifact.

    Attributes:
        metric: its name, or None where the spec has none.
        lower_is_better: whether the metric is an error; None where that is not known, and no drop can be told.
        counts_samples: whether the metric is a share of the samples, so that one of them is worth 1/n.
        value: of the metric on the test split; None where it was not measured.
        reference: of the metric, of the float Keras model.
        samples: in the test split.
        size_bytes: of the file.
        p90_latency_ms: of one call on this host; None where it was not measured.
        agreements: with the model it came from, by output.
    """

    metric: str | None
    lower_is_better: bool | None
    counts_samples: bool
    value: float | None
    reference: float | None
    samples: int
    size_bytes: int
    p90_latency_ms: float | None
    agreements: Mapping[str, Agreement]

    @property
    def drop(self) -> float | None:
        """How much worse than the reference, worse counted positive, in the metric's units."""
        if self.value is None or self.reference is None or self.lower_is_better is None:
            return None
        return self.value - self.reference if self.lower_is_better else self.reference - self.value

    def agreement_json(self) -> dict[str, Any]:
        """The agreement as the record of an artifact holds it: the worst, and that of each where there are several."""
        whole = worst_of(self.agreements).to_json()
        if len(self.agreements) == 1:
            return whole
        return {**whole, "outputs": {name: agreement.to_json() for name, agreement in self.agreements.items()}}

    def metric_json(self) -> dict[str, Any]:
        """The metric as the record of an artifact holds it."""
        return {
            "name": self.metric,
            "value": self.value,
            "reference": self.reference,
            "drop": self.drop,
            "samples": self.samples,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """One limit and what became of it.

    Attributes:
        limit: its key.
        kept: or broken.
        message: the measured value, the limit, and what one sample is worth where that matters.
    """

    limit: str
    kept: bool
    message: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in JSON files."""
        return asdict(self)


SAMPLES_THAT_NEVER_COUNT = 2
"""A change of at most two samples never breaks max_drop: on a small test set one sample is more than a small drop."""


def judge(
    limits: LimitsSpec, tolerance: Tolerance, found: Measurements, *, never_count: int = SAMPLES_THAT_NEVER_COUNT
) -> tuple[Check, ...]:
    """Holds measurements against limits and against the tolerance of the scheme.

    Args:
        limits: to keep.
        tolerance: of the scheme.
        found: what was measured.
        never_count: samples whose change never breaks max_drop.

    Returns:
        A check for every limit that is set, kept or broken.
    """
    checks: list[Check] = []
    for name, agreement in found.agreements.items():
        of_one = _agreement_checks(tolerance, agreement)
        checks += of_one if len(found.agreements) == 1 else [_of_output(check, name) for check in of_one]
    checks += _metric_checks(limits, found, never_count)
    checks += size_checks(limits, found.size_bytes)
    if limits.max_p90_latency is not None:
        p90 = found.p90_latency_ms
        kept = p90 is not None and p90 <= limits.max_p90_latency
        shown = "not measured" if p90 is None else f"{p90:.3f} ms"
        checks.append(Check("max_p90_latency", kept, f"{shown} on this host, at most {limits.max_p90_latency:g} ms"))
    return tuple(checks)


def _of_output(check: Check, name: str) -> Check:
    return replace(check, limit=f"{name}: {check.limit}")


def _agreement_checks(tolerance: Tolerance, agreement: Agreement) -> list[Check]:
    checks = []
    if agreement.has_nan:
        checks.append(Check("finite", False, "outputs hold NaN or infinity"))
    if agreement.is_constant:
        checks.append(Check("constant", False, "the same output for every sample"))
    span = agreement.reference_range or 1.0
    for name, share, allowed in (
        ("max_error", agreement.common_error / span, tolerance.max_error),
        ("mean_error", agreement.mean_error / span, tolerance.mean_error),
    ):
        message = f"{share:.2%} of the output range, at most {100 * allowed:g}%"
        checks.append(Check(name, share <= allowed, message))
    if agreement.same_answer is not None:
        different = round((1 - agreement.same_answer) * agreement.samples * agreement.answers_a_sample)
        kept = agreement.same_answer >= tolerance.same_answer or different <= SAMPLES_THAT_NEVER_COUNT
        message = f"{agreement.same_answer:.4f} of {agreement.samples} samples, at least {tolerance.same_answer:g}"
        checks.append(Check("same_answer", kept, message))
    return checks


def _metric_checks(limits: LimitsSpec, found: Measurements, never_count: int) -> list[Check]:
    name, value = found.metric, found.value
    if name is None or value is None:
        return []
    checks = range_checks(limits, name, value)
    if limits.max_drop is not None and found.drop is not None and found.reference is not None:
        allowed = limits.max_drop.allowed(found.reference)
        checks.append(_drop_check(found, found.drop, allowed, str(limits.max_drop), never_count))
    return checks


def size_checks(limits: LimitsSpec, size_bytes: int) -> list[Check]:
    """`max_size`, the one limit that needs no run."""
    if limits.max_size is None:
        return []
    return [Check("max_size", size_bytes <= limits.max_size, f"{size_bytes:,} bytes, at most {limits.max_size:,.0f}")]


def range_checks(limits: LimitsSpec, name: str, value: float) -> list[Check]:
    """`min` and `max`; what is not a number keeps neither."""
    checks = []
    if limits.min is not None:
        checks.append(Check("min", value >= limits.min, f"{name} {value:.4f}, at least {limits.min:g}"))
    if limits.max is not None:
        checks.append(Check("max", value <= limits.max, f"{name} {value:.4f}, at most {limits.max:g}"))
    return checks


def metric_limit_messages(limits: LimitsSpec, metrics: Mapping[str, float]) -> list[Message]:
    """What a trained model breaks itself: it needs no conversion to fail.

    Args:
        limits: of the spec.
        metrics: of the Keras model, by name, the first the one that limits hold if they name none.
    """
    name = limits.metric or next(iter(metrics), None)
    if name is None:
        return []
    return [
        Message(f"the trained model breaks limits.{check.limit}: {check.message}", "train it better")
        for check in range_checks(limits, name, metrics[name])
        if not check.kept
    ]


def _drop_check(found: Measurements, drop: float, allowed: float, written: str, never_count: int) -> Check:
    reference = found.reference or 0.0
    # A drop is the difference of two larger numbers: 0.98 - 0.975 is a hair more than 0.005.
    kept = drop <= allowed + 1e-12 * max(1.0, abs(reference))
    change = f"a drop of {drop:.4f}" if drop > 0 else f"better by {-drop:.4f}" if drop < 0 else "no drop"
    message = f"{found.metric} {found.value:.4f} against {reference:.4f}: {change}, at most {allowed:.4f} ({written})"
    if found.counts_samples:
        worth = 1 / found.samples
        if not kept and never_count and drop <= (never_count + 0.5) * worth:
            kept = True
            message += f"; at most {never_count} samples of {found.samples}, which never break it"
        message += f"; one sample is worth {worth:.4f}"
    return Check("max_drop", kept, message)
