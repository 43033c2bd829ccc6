"""The `train` section: optimizer, loss, metrics, callbacks, and how long."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Strict, model_validator

from mltool.console import counted
from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.backend import Backend
from mltool.spec.callbacks import OUR_CALLBACKS, REFUSED_CALLBACKS, lies_in_the_run
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem
from mltool.spec.catalogue_entries import known_names, load_entry
from mltool.spec.checkpoint import CheckpointSpec
from mltool.spec.keras_object import Callbacks, Metrics, Optimizer, OptionalLoss
from mltool.spec.model import snake_case
from mltool.spec.outputs import OF_VALIDATION, ONLY, Measure, OutputSpec, output_problems
from mltool.spec.own_step import StepSpec
from mltool.spec.own_things import OwnThing
from mltool.spec.schedule_check import schedule_problems
from mltool.spec.section import Checked, Section, raise_problem, raise_problems
from mltool.spec.strategy import AutoStrategy, CentralStorageStrategy, Strategy
from mltool.spec.task import ANOMALY_METRICS, Task, task_of


def _check_normal(value: Any) -> Any:
    labels = [value] if isinstance(value, str | int) and not isinstance(value, bool) else value
    if not isinstance(labels, list | tuple) or not labels or len({str(label) for label in labels}) < len(labels):
        raise_problem(f"must be a label, or a list of labels, each once (got {shown(value)})", "write normal: [good]")
    return tuple(str(label) for label in labels)


def _check_class_weights(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    numbers = (
        isinstance(value, dict)
        and value
        and all(
            isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < float("inf")
            for weight in value.values()
        )
    )
    if not numbers:
        message = f"must be balanced, or a map from label to a weight of 0 or more (got {shown(value)})"
        raise_problem(message, "write class_weights: {spam: 5}")
    return {str(label): float(weight) for label, weight in value.items()}


class AnomalySpec(Section):
    """Which samples are normal, and from which score on one is not."""

    normal: Annotated[
        tuple[str, ...],
        Checked(_check_normal, lambda: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ]
    """Labels of normal samples; training and validation see these alone, and the test set has all the others too."""
    quantile: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of the training samples whose score is no anomaly's: the threshold is taken from it."""


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False)]
LearningRates = dict[Annotated[str, Field(min_length=1)], Annotated[float, Field(gt=0, allow_inf_nan=False)]]

_NO_FACTORS: dict[str, float] = {}


def patterns_of(section: Section) -> Iterable[tuple[str, str | int, str]]:
    """The regular expressions of a section: the key that they stand under, their place there, and the expression."""
    for key in ("freeze", "learning_rates", "no_weight_decay"):
        value = getattr(section, key, ())
        yield from (
            (key, *item) for item in (zip(value, value, strict=True) if isinstance(value, dict) else enumerate(value))
        )


def _expression_problems(section: Section) -> Iterable[Problem]:
    for key, place, pattern in patterns_of(section):
        try:
            re.compile(pattern)
        except re.error as error:
            message = f"is no regular expression: {error} (got {shown(pattern)})"
            yield Problem((key, place), place == pattern, message, r"write a dot as \.")


class PhaseSpec(Section):
    """A part of the training, with an optimizer of its own."""

    epochs: Annotated[int, Field(gt=0)]
    """Passes over the training data in this phase, at most."""
    optimizer: Optimizer = KerasObject("Adam", {})
    """Keras' optimizer; it begins anew in every phase, and so does a schedule of `learning_rate`."""
    freeze: Patterns = ()
    """Regular expressions of whole paths, of layers (`backbone/block_[0-9]_.*`) or weights (`dense/bias`), that this
    phase leaves as they are; a layer with all that is in it. BatchNormalization that is frozen keeps its statistics."""

    learning_rates: LearningRates = _NO_FACTORS
    """Learning rates by layer: a map from regular expressions, as those of `freeze`, to what the optimizer's learning
    rate is multiplied by (and the decay of weights with it): `{"backbone/.*": 0.1}`."""
    no_weight_decay: Patterns = ()
    """Regular expressions, as those of `freeze`, of what does not decay: `[".*/(bias|gamma|beta)"]`."""

    @model_validator(mode="after")
    def _patterns_are_ones(self) -> "PhaseSpec":
        raise_problems(_expression_problems(self), None)
        return self


OF_PHASES = ("epochs", "optimizer", "learning_rates", "no_weight_decay")
"""Keys that stand in every phase where there are phases."""


class TrainSpec(Section):
    """Optimizer, loss, metrics, callbacks, and how long."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["loss"]}, {"required": ["outputs"]}],
            "not": {
                "required": ["phases"],
                "properties": {"phases": {"type": "array"}},
                "anyOf": [
                    {"required": ["epochs"]},
                    {"required": ["optimizer"]},
                    {"required": ["learning_rates"]},
                    {"required": ["no_weight_decay"]},
                    {"properties": {"phases": {"maxItems": 0}}},
                ],
            },
        }
    )

    epochs: Annotated[int, Field(gt=0)] = 10
    """Passes over the training data, at most."""
    keep: Literal["best", "last", "average"] = "best"
    """Which weights become model.keras: the best by EarlyStopping's monitor (else val_loss), the last, or the mean of
    those at the ends of the last epochs (stochastic weight averaging)."""
    average_from: Annotated[int, Field(ge=1)] | None = None
    """The first epoch that counts in the mean; the last quarter of all epochs does when left out."""
    optimizer: Optimizer = KerasObject("Adam", {})
    """Keras' optimizer; `learning_rate` takes a number or a schedule."""
    learning_rates: LearningRates = _NO_FACTORS
    """Learning rates by layer: a map from regular expressions of whole paths, of layers (`backbone/block_[0-9]_.*`) or
    weights (`dense/bias`), to what the optimizer's learning rate is multiplied by (and the decay of weights with it):
    `{"backbone/.*": 0.1}`."""
    no_weight_decay: Patterns = ()
    """Regular expressions, as those of learning_rates, of what does not decay: `[".*/(bias|gamma|beta)"]`."""
    loss: OptionalLoss = None
    """Keras' loss, or `python: "module:Name"` of yours, with its `task`."""
    metrics: Metrics = None
    """Keras' metrics, or `python: "module:Name"` of yours; `accuracy` becomes the one that fits the loss. Left out:
    accuracy, of values their mean error."""
    anomaly: AnomalySpec | None = None
    """What tells anomalies: the model is an autoencoder, which gives back what its layers were given, and a sample that
    it does not know comes back changed. The artifact gives the difference; its mean square is the score."""
    outputs: Annotated[dict[str, OutputSpec], Field(min_length=1)] | None = None
    """In place of loss and metrics, those of each output, by the name of its layer: `{NAME: {loss, metrics, weight}}`.
    The targets of each are what data.source.target says under the same name."""
    callbacks: Callbacks = ()
    """EarlyStopping, ReduceLROnPlateau, CSVLogger, RemoteMonitor, or `python: "module:Name"` of yours: a
    keras.callbacks.Callback."""
    class_weights: Annotated[
        Literal["balanced"] | dict[str, float] | None,
        Checked(
            _check_class_weights,
            lambda: {
                "anyOf": [
                    {"const": "balanced"},
                    {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
                    {"type": "null"},
                ]
            },
        ),
    ] = None
    """How much a training sample of each class counts: a map from label to weight (1 where left out), or balanced:
    the rarer a class, the more."""
    scale_target: Literal["auto", "standard", "none"] = "auto"
    """How a regression learns its targets: `standard` brings them to mean 0 and deviation 1 for the loss, and the model
    gives original units all the same; `auto` does so for MeanSquaredError and MeanAbsoluteError."""
    strategy: Strategy = AutoStrategy()
    """How training is distributed: auto (all GPUs of the machine, else the CPU), one_device, mirrored, multi_worker,
    parameter_server, central_storage or tpu, with arguments where they are needed: `mirrored: {devices: [GPU:0]}`."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts in which every device computes its share of a batch, one after the other, before the weights change: the
    memory of a part, the step of the whole data.batch_size."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """In what layers compute; weights, preprocessing, the last layers and every artifact stay float32. mixed_float16
    scales the loss."""
    tf32: bool = True
    """Whether float32 products on GPUs may use TensorFloat-32, with 10 bits of mantissa."""
    jit_compile: Literal["auto"] | bool = "auto"
    """Whether XLA compiles forward and backward pass; auto is off on CPU, where it was measured 1.7 to 2.7 times
    slower, and on where it can work on GPUs and TPUs."""
    deterministic: bool = True
    """Whether GPUs give the same bits twice, as CPUs do anyway; needed to resume exactly there."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of an operation; all cores when left out. The number can change the last digits: recorded."""
    onednn: Literal["auto"] | bool = "auto"
    """oneDNN's kernels, 1.15 to 1.3 times faster and other in the last digits: recorded. auto is off, unless
    TF_ENABLE_ONEDNN_OPTS says otherwise: gradients of 1x1 convolutions with strides were seen to be wrong with them."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """How often there is a checkpoint, to resume from or to go back to."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """What follows a step whose loss or gradients are not finite: `stop` and say where it came from; `skip` leaves the
    batch out, at most 10 in a row; `rollback` goes back to the last checkpoint with half the learning rate, at most 3
    times."""
    on_oom: Literal["halve", "stop"] = "halve"
    """What follows when a device runs out of memory: `halve` goes on from the last checkpoint with twice as many parts
    of a batch (see accumulate), once; `stop` fails."""
    backend: Backend = "tensorflow"
    """What Keras trains with: tensorflow, jax or torch. All else is done with TensorFlow, where the model is proven to
    answer as it did."""
    phases: Annotated[tuple[PhaseSpec, ...] | None, Strict(False)] = None
    """A list of phases, one after the other, instead of epochs and optimizer; callbacks begin anew in each, and
    EarlyStopping ends the phase."""
    step: StepSpec | None = None
    """A training step of yours, `{python: "module:function"}`, in the place of mltool's."""

    @model_validator(mode="after")
    def _keys_fit(self) -> "TrainSpec":
        problems = (
            *_expression_problems(self),
            *self._phase_problems(),
            *self._optimizer_problems(),
            *self._output_problems(),
            *self._callback_problems(),
            *self._keep_problems(),
            *self._step_problems(),
        )
        raise_problems(problems, None)
        return self

    def _phase_problems(self) -> Iterable[Problem]:
        if self.phases == ():
            yield Problem(("phases",), False, "must have at least one phase (got [])", "write [{epochs: 10}]")
        for key in OF_PHASES:
            if self.phases is not None and key in self.model_fields_set:
                message = "stands beside phases, which have their own"
                yield Problem((key,), True, message, f"take it out, or write {key}: in every phase")

    @property
    def placed_phases(self) -> tuple[tuple[tuple[str | int, ...], PhaseSpec], ...]:
        """The phases, each with its place in the section; without `phases`, epochs and optimizer are the only one."""
        if self.phases is None:
            return (((), PhaseSpec.model_construct(**{key: getattr(self, key) for key in OF_PHASES})),)
        return tuple((("phases", index), phase) for index, phase in enumerate(self.phases))

    def _optimizer_problems(self) -> Iterable[Problem]:
        is_central = isinstance(self.strategy, CentralStorageStrategy)
        if is_central and self.precision == "mixed_float16":
            message = "scales the loss by a state that replicas of central_storage cannot share"
            yield Problem(("precision",), False, message, "take mirrored, or mixed_bfloat16")
        for place, phase in self.placed_phases:
            if is_central and phase.optimizer.arguments.get("use_ema"):
                path = (*place, "optimizer", phase.optimizer.name, "use_ema")
                yield Problem(path, True, "replicas of central_storage cannot share an average", "take mirrored")
            if phase.optimizer.arguments.get("gradient_accumulation_steps"):
                path = (*place, "optimizer", phase.optimizer.name, "gradient_accumulation_steps")
                message = "Keras cannot accumulate under a strategy"
                yield Problem(path, True, message, "leave it out, and write train.accumulate, in parts of a batch")
            yield from _clipping_problems(phase.optimizer, (*place, "optimizer", phase.optimizer.name))
            if phase.no_weight_decay and not decays(phase.optimizer):
                message = f"{phase.optimizer.name} decays no weights"
                hint = f"write {phase.optimizer.name}: {{weight_decay: 0.01}}, or leave this out"
                yield Problem((*place, "no_weight_decay"), True, message, hint)
            for problem in schedule_problems(phase.optimizer, phase.epochs):
                yield replace(problem, path=(*place, "optimizer", *problem.path))

    def _output_problems(self) -> Iterable[Problem]:
        yield from self._anomaly_problems()
        if self.outputs is None:
            if self.loss is None:
                hint = (
                    "add loss: {SparseCategoricalCrossentropy: {from_logits: true}}, or outputs: {LAYER: {loss: ...}}"
                )
                if self.anomaly is not None:
                    hint = "add loss: MeanSquaredError"
                yield Problem(("loss",), True, "is missing", hint)
                return
            yield from output_problems(self.heads[ONLY], ())
            return
        for key in ("loss", "metrics"):
            if getattr(self, key) not in (None, UNREADABLE, (UNREADABLE,)):
                yield Problem((key,), True, "stands under outputs, for every output of its own", "take it out here")
        for name, output in self.outputs.items():
            yield from output_problems(output, ("outputs", name))
            if output.loss != UNREADABLE and f"{name}_".startswith(OF_VALIDATION):
                message = f"results of an output {name!r} would be taken for those of validation"
                yield Problem(("outputs", name), True, message, "give the layer another name")
        owners = {f"{name}_loss": name for name in self.outputs}
        for measure in self.measures:
            # Within an output it is told already: `a: [b_c]` and `a_b: [c]` are what is left.
            if measure.metric != UNREADABLE and owners.setdefault(measure.name, measure.output) != measure.output:
                path = measure.path[1:] or ("outputs", measure.output)
                message = f"two results are called {measure.name!r}"
                yield Problem(path, True, message, "give the metric a name: of its own")

    def _anomaly_problems(self) -> Iterable[Problem]:
        if self.anomaly is None:
            return
        if self.outputs is not None:
            message = "an autoencoder has one output, and there are train.outputs"
            yield Problem(("anomaly",), True, message, "take train.loss in their place, or leave anomaly out")
        if self.loss is not None and self.loss != UNREADABLE and task_of(self.loss) != "regression":
            message = f"{self.loss.name} is for classes, and an autoencoder gives values back"
            yield Problem(("loss",), False, message, "take MeanSquaredError")
        for key, default in (("class_weights", None), ("scale_target", "auto")):
            if getattr(self, key) != default:
                yield Problem((key,), True, "an autoencoder learns its own input", "leave it out")
        for index, metric in enumerate(self.metrics or ()):
            if metric != UNREADABLE and metric.name not in ANOMALY_METRICS:
                message = f"{metric.name} has no meaning for anomalies"
                yield Problem(("metrics", index), True, message, f"take one of {', '.join(ANOMALY_METRICS)}")
            for argument in metric.arguments if metric.name in ANOMALY_METRICS else ():
                if argument != "name":
                    message = "has no meaning for anomalies: scores of any size, and the threshold of train.anomaly"
                    yield Problem(("metrics", index, *metric.path_of(argument)), True, message, "leave it out")

    def _callback_problems(self) -> Iterable[Problem]:
        known = self.monitors
        seen: set[str] = set()
        for index, callback in enumerate(self.callbacks):
            place = ("callbacks", index, callback.name)
            if callback == UNREADABLE:
                continue
            if callback.name in REFUSED_CALLBACKS:
                message, hint = REFUSED_CALLBACKS[callback.name]
                yield Problem(place, True, message, hint)
            filename = callback.arguments.get("filename") if callback.name == "CSVLogger" else None
            if isinstance(filename, str) and not lies_in_the_run(filename):
                message = f"must be a file in callbacks/ of the run (got {shown(filename)})"
                yield Problem((*place, "filename"), False, message, "write filename: epochs.csv")
            if callback.name not in OUR_CALLBACKS:
                continue
            if callback.name in seen:
                yield Problem(place, True, f"{callback.name} stands twice", "keep one of them")
            seen.add(callback.name)
            monitor = str(callback.arguments.get("monitor", "val_loss"))
            if monitor not in known and self.measures_are_known:
                yield Problem((*place, "monitor"), False, f"nothing is called {monitor!r}", close_hint(monitor, known))
            yield from self._direction_problems(place, callback, monitor)
            if callback.name == "ReduceLROnPlateau" and any(
                isinstance(phase.optimizer.arguments.get("learning_rate"), KerasObject)
                for _, phase in self.placed_phases
            ):
                message = "changes a learning rate that the optimizer's schedule sets in every step"
                yield Problem(place, True, message, "keep either this callback or the schedule")

    def _direction_problems(
        self, place: tuple[str | int, ...], callback: KerasObject, monitor: str
    ) -> Iterable[Problem]:
        """A monitor of one's own must say whether more of it is better, or the callback must."""
        watched = [one.metric for one in self.measures if one.name == monitor.removeprefix(OF_VALIDATION)]
        undecided = any(isinstance(metric, OwnThing) and metric.better is None for metric in watched)
        if undecided and callback.arguments.get("mode", "auto") == "auto":
            message = f"whether more of {monitor} is better is not known"
            yield Problem(place, True, message, "write mode: max, or mode: min; or better: greater under the metric")

    def _keep_problems(self) -> Iterable[Problem]:
        if self.keep != "best" and self.restores_best:
            message = f"contradicts restore_best_weights: true of EarlyStopping (got {self.keep!r})"
            yield Problem(("keep",), False, message, "write keep: best, or restore_best_weights: false")
        if self.average_from is not None and self.keep != "average":
            yield Problem(("average_from",), True, "is for keep: average", "leave it out, or write keep: average")
        elif self.average_from is not None and self.average_from > self.all_epochs:
            message = f"training ends after {counted(self.all_epochs, 'epoch')} (got {self.average_from})"
            yield Problem(("average_from",), False, message, "take an earlier one")
        for place, phase in self.placed_phases:
            if self.keep == "average" and phase.optimizer.arguments.get("use_ema"):
                path = (*place, "optimizer", phase.optimizer.name, "use_ema")
                yield Problem(path, True, "averages the weights too, and keep: average does", "keep one of them")

    @property
    def all_epochs(self) -> int:
        """Of all phases, at most."""
        return sum(phase.epochs for _, phase in self.placed_phases)

    @property
    def first_averaged(self) -> int | None:
        """The first epoch, from 0, that counts in the mean of weights; None where no mean is kept.

        Izmailov et al., arXiv:1803.05407, section 4, average in the last quarter of the budget.
        """
        if self.keep != "average":
            return None
        of_all = self.all_epochs
        return min(of_all - 1, 3 * of_all // 4) if self.average_from is None else self.average_from - 1

    @property
    def restores_best(self) -> bool:
        """Whether EarlyStopping brings the best weights back."""
        stopping = [callback for callback in self.callbacks if callback.name == "EarlyStopping"]
        return any(callback.arguments.get("restore_best_weights") for callback in stopping)

    def _step_problems(self) -> Iterable[Problem]:
        """What mltool's own step does, and a step of the user's would have to."""
        if self.step is None:
            return
        if self.accumulate > 1:
            message = "is done by mltool's step, and train.step is yours"
            yield Problem(("accumulate",), False, message, "leave it out, and sum gradients over parts in your step")
        if self.precision == "mixed_float16":
            message = "scales the loss in mltool's step, and train.step is yours"
            yield Problem(("precision",), False, message, "take mixed_bfloat16, which needs no scale, or float32")
        if self.on_nan != "stop":
            message = "needs a step that is looked at before it changes a weight, and train.step changes them itself"
            yield Problem(("on_nan",), False, message, "take stop")
        if self.jit_compile is True:
            message = "compiles mltool's step, and train.step is yours"
            yield Problem(("jit_compile",), False, message, "leave it out")

    @property
    def heads(self) -> Mapping[str, OutputSpec]:
        """Loss and metrics by output; the key of the only one is ""."""
        if self.outputs is not None:
            return self.outputs
        loss = UNREADABLE if self.loss is None else self.loss
        of_anomaly = (KerasObject("AUC", {}),) if self.anomaly is not None else None
        return {
            ONLY: OutputSpec.model_construct(loss=loss, metrics=of_anomaly if self.metrics is None else self.metrics)
        }

    @property
    def tasks(self) -> dict[str, Task]:
        """What every output answers, as far as the spec tells it; see `Task`."""
        return {name: "anomaly" if self.anomaly else task_of(head.loss) for name, head in self.heads.items()}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The metrics of all outputs."""
        return tuple(measure for name, head in self.heads.items() for measure in head.measures(name))

    @property
    def measures_are_known(self) -> bool:
        """False where one could not be read, or follows from a loss that could not."""
        return all(
            UNREADABLE not in head.measured and (head.metrics is not None or head.loss != UNREADABLE)
            for head in self.heads.values()
        )

    @property
    def monitors(self) -> tuple[str, ...]:
        """What is measured in every epoch, on training data and, with `val_` before it, on validation data."""
        losses = (f"{name}_loss" for name in self.outputs or ())
        # Anomalies are told after training, with the threshold.
        measures = () if self.anomaly is not None else self.measures
        names = ("loss", *losses, *(measure.name for measure in measures))
        return (*names, *(f"{OF_VALIDATION}{name}" for name in names))


_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


def _clipping_problems(optimizer: KerasObject, place: tuple[str | int, ...]) -> Iterable[Problem]:
    """Keras clips gradients in one way, or refuses the optimizer."""
    given = [key for key, value in optimizer.arguments.items() if key in _CLIPS and value is not None]
    for key in given[1:]:
        message = f"stands beside {given[0]}, and gradients are clipped in one way"
        yield Problem((*place, key), True, message, "keep one of them")


def decays(optimizer: KerasObject) -> bool:
    """Whether an optimizer of the spec decays weights by itself."""
    entry = load_entry("optimizer", optimizer.name)
    if entry is None:  # it could not be read
        return True
    keys = [key for key in entry.arguments if key.endswith("weight_decay")]
    return any(optimizer.arguments.get(key, entry.arguments[key].default) for key in keys)


def close_hint(name: str, known: Iterable[str]) -> str:
    """What was meant by a name that is not known, or all that are."""
    known = list(known)
    prefix = OF_VALIDATION if name.startswith(OF_VALIDATION) else ""
    # Keras' short names (`acc`, `mae`) are no names of results.
    long = prefix + snake_case(known_names("metric").get(name.removeprefix(prefix), ""))
    if long in known:
        return f"did you mean {long!r}?"
    return did_you_mean(name, known) or f"known: {', '.join(known) or 'none'}"
