"""Looks for the best file of a model: cheap candidates first, layers that lose most in more precision, then training.

Candidates are made one by one through the same workbench as every other file, and scored by the task's own metric on
validation samples; the test split is left for the winner. No library for search was taken: they choose points of a
space at random or by a model of it, and here a ranking of layers says which ten of millions are worth a try.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mltool.conversion.entries import float_layers_of, tolerance_of, with_insides
from mltool.conversion.explain.explain import explain
from mltool.conversion.search.candidates import Candidate, doubling, keeping, narrowing, trained, whole_schemes
from mltool.conversion.search.trial import SearchResult, Trial, best_of
from mltool.conversion.workbench import Made, Workbench
from mltool.errors import ArtifactError, ConversionError, DataError, MissingExtraError, TrainingError
from mltool.evaluation.agreement import worst_of
from mltool.evaluation.judge import Measurements, judge
from mltool.evaluation.reference import Reference
from mltool.inference.litert import runtime_name
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.search import SearchSpec

logger = logging.getLogger("mltool")

SURE = 1.645
"""Standard errors that are added to a drop: one in twenty files that lose more gets through (one-sided 5 % of a normal
distribution; of few samples more do, as where none of 120 is answered otherwise). With one, an int4 file of a
MobileNetV2 did: 0.8 points of 120 validation samples, 3.0 of the test. So did a mixture while training samples counted,
of which a model is too sure: no drop there, 2.75 points of the test."""

FEW_SAMPLES = 500
"""Validation samples below which one of them is worth more than most limits allow to lose."""


def search(bench: Workbench, entry: ConvertSpec, limits: LimitsSpec) -> SearchResult:
    """Tries files until nothing better is to be expected.

    Args:
        bench: of the model.
        entry: with `quantize: auto`.
        limits: that the winner has to keep.

    Raises:
        DataError: if there are no validation samples.
    """
    return _Search(bench, entry, limits).run()


class _Search:
    def __init__(self, bench: Workbench, entry: ConvertSpec, limits: LimitsSpec) -> None:
        self.bench, self.entry, self.limits = bench, entry, limits
        self.asked = entry.search or SearchSpec()
        self.trials: list[Trial] = []
        self.sensitivity: list[tuple[str, float]] = []
        self.reference = bench.origin.search_reference("validation", self.asked.samples)
        # Of few samples none may be wrong by chance: what calibrated and trained must not get worse either.
        few = len(self.reference.samples) < FEW_SAMPLES
        self.also = bench.origin.search_reference("train", self.asked.samples) if few else None
        if few:
            told = "only %d validation samples score: files must keep the limits on %d training samples, too"
            logger.warning(told, len(self.reference.samples), len(self.also.samples) if self.also else 0)

    def run(self) -> SearchResult:
        for candidate in whole_schemes(self.entry, converter=self.bench.origin.core.saved_model is not None):
            self._try(candidate)
        self._mixtures()
        if self.asked.aware and self.bench.can_train and self._none_is_sure() and self._some_are_small_enough():
            for candidate in trained(self.entry):
                self._try(candidate)
        winner, scored, host = self._winner(), len(self.reference.samples), runtime_name()
        if winner is not None and not winner.kept:
            told = "%s is the likeliest to keep the limits, and %d validation samples are too few to be sure: %s"
            logger.warning(told, winner.candidate.name, scored, winner.unsure)
        return SearchResult(self.trials, winner, self.asked.minimize, scored, host, self.sensitivity, self._most_lost())

    def _none_is_sure(self) -> bool:
        return not any(trial.kept for trial in self.trials)

    def _most_lost(self) -> float | None:
        reference = next((trial.metric.get("reference") for trial in self.trials if trial.metric), None)
        return None if self.limits.max_drop is None or reference is None else self.limits.max_drop.allowed(reference)

    def _some_are_small_enough(self) -> bool:
        """Whether an int8 file keeps the size: training on makes none smaller."""
        int8 = [trial for trial in self.trials if trial.candidate.entry.quantize == "int8" and trial.bytes is not None]
        return self.limits.max_size is None or any(int(trial.bytes or 0) <= self.limits.max_size for trial in int8)

    def _mixtures(self) -> None:
        """Layers that lose most get more bits where int8 loses too much; those that lose least fewer, else."""
        int8 = self._int8()
        if int8 is None or int8.made is None or self.entry.io != "float32":
            return
        worst, weighted = self._ranked(int8.made)
        if not int8.kept and not _too_large(int8):
            for scheme in ("int16x8", "float32"):
                able = [name for name in worst if name not in self._no_kernel(scheme)]
                self._until_kept([keeping(self.entry, able, scheme, count) for count in doubling(len(able))])
        dynamic = next((trial for trial in self.trials if trial.candidate.name == "dynamic"), None)
        int4 = next((trial for trial in self.trials if trial.candidate.name == "int4"), None)
        larger = dynamic is not None and (dynamic.kept or _too_large(dynamic))
        if larger and int4 is not None and int4.bytes is not None and not int4.kept and not _too_large(int4):
            # As many as may be: those that lose least first, and fewer where it is too much. All of them are int4.
            counts = sorted(doubling(len(weighted) - 1), reverse=True)
            self._until_kept([narrowing(self.entry, weighted[::-1], count) for count in counts])

    def _until_kept(self, candidates: Sequence[Candidate]) -> None:
        """One after the other, until one keeps the limits or is too large: those that follow are larger."""
        for candidate in candidates:
            trial = self._try(candidate)
            if trial is None or trial.kept or _too_large(trial):
                return

    def _no_kernel(self, scheme: str) -> set[str]:
        """Layers that stay float in a file of this scheme, and cannot be given it either."""
        if scheme == "float32":
            return set()
        origin = self.bench.origin
        whole = ConvertSpec.model_validate({"quantize": scheme})
        return set(with_insides(float_layers_of(whole, origin.schema), origin.layer_names))

    def _ranked(self, int8: Made) -> tuple[list[str], list[str]]:
        """Layers by the noise that they add in int8, told by one run of the file beside the float one.

        Returns:
            All of them, and those that have weights; the one that adds most first.
        """
        try:
            found = explain(
                "int8",
                float_file=self.bench.float_file(int8.entry),
                quantized_file=int8.file,
                samples=self.bench.as_core_takes(self.reference.samples.first(len(self.reference.samples))),
                layer_names=self.bench.origin.layer_names,
                child=self.bench.interpreter,
            )
        except (ArtifactError, ConversionError) as error:
            logger.warning("no layer could be ranked, so no mixture is tried: %s", error.messages[0].message)
            return [], []
        kept = set(int8.keep_float)
        noise: dict[str, float] = {}
        for layer in found.layers:
            for name in layer.layers:
                noise[name] = max(noise.get(name, 0.0), layer.own_noise)
        ranked = sorted(((name, value) for name, value in noise.items() if name not in kept), key=lambda one: -one[1])
        self.sensitivity = ranked
        weighted = {name for layer in found.layers if layer.weight_dtype is not None for name in layer.layers}
        names = [name for name, _ in ranked]
        return names, [name for name in names if name in weighted]

    def _try(self, candidate: Candidate) -> Trial | None:
        """Makes, reads and runs a candidate; None where as many were tried as may be."""
        if len(self.trials) >= self.asked.max_candidates:
            return None
        started = time.perf_counter()
        made = self.bench.scratch / f"candidate-{len(self.trials)}.tflite"
        try:
            trial = self._measured(candidate, made, started)
        except (ConversionError, ArtifactError, DataError, TrainingError, MissingExtraError) as error:
            why = str(error).removeprefix(f"{candidate.entry.name}: ")
            trial = Trial(candidate, time.perf_counter() - started, error=why)
            made.unlink(missing_ok=True)
        self.trials.append(trial)
        self._let_go()
        state = "keeps the limits" if trial.kept else trial.error or "; ".join(trial.why_not)
        size = "" if trial.bytes is None else f"{trial.bytes / 1e3:.1f} kB, loses {trial.loss:.4f}, "
        logger.info("search %d: %s: %s%s", len(self.trials), candidate.name, size, state)
        return trial

    def _let_go(self) -> None:
        """Files that nobody asks for any more: all but the best so far, and the int8 file that ranks the layers."""
        needed = [self._winner(), self._int8()]
        for trial in self.trials:
            if trial.made is not None and not any(trial is one for one in needed):
                trial.made.file.unlink(missing_ok=True)

    def _int8(self) -> Trial | None:
        return next((trial for trial in self.trials if trial.candidate.entry.quantize == "int8"), None)

    def _measured(self, candidate: Candidate, made: Path, started: float) -> Trial:
        entry, limits = candidate.entry, self.limits
        file = self.bench.make(entry, made)
        self.bench.read_back(file)
        wanted = self.asked.minimize == "latency" or limits.max_p90_latency is not None
        latency = self.bench.latency(made, self.reference) if wanted else None
        found = self._found(file, self.reference, latency)
        broken = self._broken(file, found)
        if not broken and self.also is not None:
            also = self._found(file, self.also, None)
            broken = [f"on training samples: {text}" for text in self._broken(file, also)]
        margin, unsure = (None, "") if broken else self._by_chance(file, found)
        return Trial(
            candidate,
            time.perf_counter() - started,
            made.stat().st_size,
            found.metric_json(),
            found.agreement_json(),
            latency["p90"] if latency else None,
            tuple(broken),
            unsure,
            margin,
            made=file,
        )

    def _found(self, made: Made, reference: Reference, latency: Mapping[str, float] | None) -> Measurements:
        """The metric, and how far the answers are from those of the model that the file was made of."""
        held = self.bench.held_against(made, reference)
        found, _ = self.bench.measure(made.file, held, metric=self.limits.metric, latency=latency)
        if found.value is not None and not math.isfinite(found.value):
            # An area under a curve, where no sample is an anomaly: there is nothing to tell a drop by.
            return replace(found, value=None)
        return found

    def _broken(self, made: Made, found: Measurements) -> list[str]:
        """Limits that a file breaks; not one sample is given, for many files are tried on few of them."""
        checks = judge(self.limits, tolerance_of(made.entry), found, never_count=0)
        broken = [f"{check.limit}: {check.message}" for check in checks if not check.kept]
        if found.drop is None and self.limits.max_drop is not None:
            worst = worst_of(found.agreements)
            share = worst.mean_error / (worst.reference_range or 1.0)
            if share > self.limits.max_drop.value:
                broken.append(f"max_drop: no metric can be told here, and answers are off by {share:.2%} in the mean")
        return broken

    def _by_chance(self, made: Made, found: Measurements) -> tuple[float | None, str]:
        """A drop that keeps the limit by chance alone: standard errors are added to it.

        Of n samples of which a share d is answered otherwise, the difference of two shares of right answers has at most
        the variance d / n (McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947).

        Returns:
            Where the limit may be kept by chance, the standard errors between it and the drop, and what is to be said.
        """
        drop, reference = found.drop, found.reference
        if drop is None or reference is None or self.limits.max_drop is None or not found.counts_samples:
            return None, ""
        if made.keras is not None:  # trained on: its answers differ from its own model's less than from the run's
            found = self._against_the_run(made, found)
        others, allowed = 1 - (worst_of(found.agreements).same_answer or 0.0), self.limits.max_drop.allowed(reference)
        chance = math.sqrt(others / found.samples)
        if drop + SURE * chance <= allowed + 1e-12:
            return None, ""
        change = f"a drop of {drop:.4f} and {SURE} standard errors of {chance:.4f} on {found.samples} samples"
        return (allowed - drop) / chance, f"max_drop: {change}, at most {allowed:.4f}"

    def _against_the_run(self, made: Made, found: Measurements) -> Measurements:
        against, _ = self.bench.measure(made.file, self.reference, metric=self.limits.metric)
        return replace(found, agreements=against.agreements)

    def _winner(self) -> Trial | None:
        return best_of(self.trials, self.asked.minimize)


def _too_large(trial: Trial) -> bool:
    return any(broken.startswith("max_size") for broken in trial.broken)
