"""What became of a candidate, and of the whole search; the document `lite/<name>.search.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mltool.conversion.search.candidates import STEPS, Candidate
from mltool.conversion.search.front import pareto_front
from mltool.conversion.workbench import Made
from mltool.spec.spec import to_plain


@dataclass(frozen=True)
class Trial:
    """One file that was tried.

    Attributes:
        candidate: what was to be made.
        seconds: to make, read and run it.
        bytes: of the file; None where it could not be made.
        metric: name, value, reference and drop on the validation samples.
        agreement: with the model.
        p90_latency_ms: of one call on this host; None where it was not asked for.
        broken: limits that it breaks, in words; empty where it keeps all.
        unsure: a drop that keeps its limit and may do so by chance, in words; empty where it is sure.
        margin: standard errors between such a drop and its limit; None where it is sure.
        error: why it could not be made.
        made: the file, which lies there as long as the search may need it; that of the winner to the end.
    """

    candidate: Candidate
    seconds: float
    bytes: int | None = None
    metric: Mapping[str, Any] = field(default_factory=dict)
    agreement: Mapping[str, Any] = field(default_factory=dict)
    p90_latency_ms: float | None = None
    broken: Sequence[str] = ()
    unsure: str = ""
    margin: float | None = None
    error: str = ""
    made: Made | None = field(default=None, repr=False, compare=False)

    @property
    def kept(self) -> bool:
        """Whether it was made and keeps every limit, as far as the standard error of its drop can tell."""
        return self.bytes is not None and not self.broken and not self.unsure

    @property
    def why_not(self) -> list[str]:
        """What speaks against it: limits that it breaks, or keeps by chance."""
        return [*self.broken, *([self.unsure] if self.unsure else [])]

    @property
    def loss(self) -> float:
        """What it loses against the model: the drop of the metric, else the mean error."""
        drop = self.metric.get("drop")
        return float(drop if drop is not None else self.agreement.get("mean_error", 0.0))

    def cost(self, minimize: str) -> tuple[float, float]:
        """What the winner has least of, and after that what it loses."""
        first = self.p90_latency_ms if minimize == "latency" else self.bytes
        return (float("inf") if first is None else float(first), self.loss)

    def to_json(self, *, on_front: bool) -> dict[str, Any]:
        """As the document has it."""
        return {
            "name": self.candidate.name,
            "step": self.candidate.step,
            "entry": to_plain(self.candidate.entry),
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "metric": dict(self.metric),
            "agreement": dict(self.agreement),
            "p90_latency_ms": self.p90_latency_ms,
            "kept": self.kept,
            "broken": list(self.broken),
            "unsure": self.unsure,
            "margin": self.margin,
            "error": self.error,
            "on_front": on_front,
        }


def best_of(trials: Sequence[Trial], minimize: str) -> Trial | None:
    """The least costly of those that keep the limits for sure; where none does, the one that is likeliest to.

    Args:
        trials: in any order.
        minimize: `size` or `latency`.
    """
    if kept := [trial for trial in trials if trial.kept]:
        return min(kept, key=lambda trial: trial.cost(minimize))
    unsure = [trial for trial in trials if trial.margin is not None]
    return min(unsure, key=lambda trial: (-(trial.margin or 0.0), trial.cost(minimize)), default=None)


@dataclass(frozen=True)
class SearchResult:
    """All that was tried.

    Attributes:
        trials: in the order in which they were made.
        winner: the one to keep, see `best_of`; None where nothing keeps the limits.
        minimize: `size` or `latency`.
        samples: of the validation split that scored.
        host: that latency was measured on.
        most_lost: drop of the metric from which on the limit is broken; None without such a limit.
        sensitivity: share of noise that each layer adds in int8, the worst first.
    """

    trials: Sequence[Trial]
    winner: Trial | None
    minimize: str
    samples: int
    host: str
    sensitivity: Sequence[tuple[str, float]] = ()
    most_lost: float | None = None

    @property
    def front(self) -> list[Trial]:
        """Files that no other beats in cost and in loss: of those that keep the limits, else that may, else of all."""
        kept = [trial for trial in self.trials if trial.kept] or [one for one in self.trials if one.margin is not None]
        return pareto_front(kept or [trial for trial in self.trials if trial.bytes is not None], self._costs)

    def _costs(self, trial: Trial) -> tuple[float, float]:
        return trial.cost(self.minimize)

    def bought(self) -> list[dict[str, Any]]:
        """What each step of the search was worth: files tried, seconds, the best so far, see `best_of`."""
        told: list[dict[str, Any]] = []
        best: Trial | None = None
        for step in STEPS:
            trials = [trial for trial in self.trials if trial.candidate.step == step]
            if not trials:
                continue
            before = best
            best = best_of([*([best] if best else []), *trials], self.minimize)
            told.append(
                {
                    "step": step,
                    "tried": len(trials),
                    "seconds": round(sum(trial.seconds for trial in trials), 3),
                    "best": best.candidate.name if best else None,
                    "bytes": best.bytes if best else None,
                    "loss": best.loss if best else None,
                    "improved": best is not before,
                }
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """The document."""
        front = self.front
        return {
            "schema_version": 1,
            "minimize": self.minimize,
            "samples": self.samples,
            "host": self.host,
            "most_lost": self.most_lost,
            "winner": self.winner.candidate.name if self.winner else None,
            "steps": self.bought(),
            "sensitivity": [{"layer": layer, "own_noise": noise} for layer, noise in self.sensitivity],
            "trials": [trial.to_json(on_front=any(trial is one for one in front)) for trial in self.trials],
        }
