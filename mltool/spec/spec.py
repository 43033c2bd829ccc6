"""The whole spec: all sections, and what must hold between them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Strict, model_validator

from mltool.spec.architectures import ARCHITECTURES, has_head
from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.backbones import answers_with
from mltool.spec.backend import backend_problems
from mltool.spec.blocks import MIXERS
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem
from mltool.spec.catalogue_entries import backbones
from mltool.spec.convert import ConvertSpec
from mltool.spec.convert_check import convert_problems, limit_problems, matches_one
from mltool.spec.data import FOLDER_KINDS, DataSpec
from mltool.spec.export import ExportSpec, ServeSpec
from mltool.spec.graph import unused_layers
from mltool.spec.limits import Drop, LimitsSpec
from mltool.spec.model import AUTO, INPUT_KINDS, OWN_MODEL, SINGLE, LayerSpec, ModelSpec
from mltool.spec.outputs import ONLY
from mltool.spec.own_things import OwnThing
from mltool.spec.section import Checked, Section, raise_problem, raise_problems
from mltool.spec.sound import sound_problems
from mltool.spec.strategy import StrategySpec
from mltool.spec.task import takes_logits
from mltool.spec.train import OF_PHASES, TrainSpec, close_hint, patterns_of

__all__ = ["INFERRED_INPUTS", "Spec", "to_plain"]

INFERRED_INPUTS = ("image", "audio", "text", "x")
"""Names that an undeclared input gets: after its kind, else `x`; those of a table are called after its columns."""


def _no_include(value: Any) -> None:
    """Files are put together before sections are read (`include.py`); only `--set` brings one here."""
    if value is not None:
        raise_problem("cannot be set from the command line", "write it into the file")


class Spec(Section):
    """One YAML file: data, model, training, export, conversion, limits."""

    version: Literal[1] = 1
    """Version of the spec's form."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    """Name of the model: letters, digits, _ and -; runs go to runs/NAME."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seeds splits, weights, order, dropout and augmentation."""
    include: Annotated[
        tuple[str, ...] | None,
        Checked(
            _no_include,
            lambda: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        ),
    ] = None
    """Other YAML files that this one builds on: maps are merged, lists replaced, this file wins."""
    data: DataSpec
    """Where samples come from, how they are shared out, and what training does to them."""
    model: ModelSpec
    """Preprocessing and layers; both are part of the model and so of every artifact."""
    train: TrainSpec
    """Optimizer, loss, metrics, callbacks, and how long."""
    export: ExportSpec = ExportSpec()
    """What the model is exported to."""
    convert: Annotated[tuple[ConvertSpec, ...], Strict(False)] = (ConvertSpec(name="none"),)
    """The .tflite files to make of it."""
    limits: LimitsSpec = LimitsSpec()
    """What every artifact must keep."""
    serve: ServeSpec = ServeSpec()
    """How the model is served."""

    @model_validator(mode="after")
    def _sections_fit(self) -> "Spec":
        problems = (
            *self._window_problems(),
            *self._input_problems(),
            *self._sound_problems(),
            *self._output_problems(),
            *self._mixing_problems(),
            *self._part_problems(),
            *self._pattern_problems(),
            *convert_problems(self),
            *limit_problems(self),
            *backend_problems(self),
        )
        raise_problems(problems, None)
        return self

    def _window_problems(self) -> Iterable[Problem]:
        """A forecast is values, whatever their number."""
        if self.data.source.window is None:
            return
        loss = self.train.loss
        if self.train.outputs is not None:
            hint = "take train.loss and train.metrics, and target: COLUMN"
            yield Problem(("train", "outputs"), True, "windows forecast one column, for one output", hint)
        elif self.train.anomaly is not None:
            message = "tells samples by their label, and windows have values"
            yield Problem(("train", "anomaly"), True, message, "cut the windows yourself: an .npz of series and labels")
        elif loss is not None and self.train.tasks != {ONLY: "regression"}:
            message = f"{loss.name} is for classes, and windows forecast values"
            yield Problem(("train", "loss"), False, message, "write MeanSquaredError, MeanAbsoluteError or Huber")

    def _input_problems(self) -> Iterable[Problem]:
        """Inputs that the layers take, and that the data have."""
        declared = tuple(self.data.inputs) if self.data.inputs else INFERRED_INPUTS
        # The columns of a table are not known before it is read.
        is_table = self.data.source.known_kind not in ("npz", *FOLDER_KINDS)
        open_ended = is_table and not self.data.inputs
        if is_table:
            declared = (*declared, *INPUT_KINDS)
        known = {*declared, *(layer.name for layer in self.model.layers)}
        for index, layer in enumerate(self.model.layers):
            place = ("model", *layer.place_of())
            for position, name in enumerate(layer.inputs):
                if name not in known and self.names_are_known and not open_ended:
                    message = f"no layer or input is called {name!r}"
                    yield Problem((*place, "inputs", position), False, message, close_hint(name, sorted(known)))
            if index == 0 and not layer.inputs and self.data.inputs and len(self.data.inputs) > 1 and not is_table:
                message = f"the first layer must say which inputs it takes: {', '.join(declared)}"
                yield Problem((*place, "inputs"), True, message, f"add inputs: [{declared[0]}]")
        preprocess = {} if isinstance(self.model.preprocess, str) else self.model.preprocess
        for name in preprocess:
            if name != SINGLE and name not in declared and not open_ended:
                message = f"the data have no input called {name!r}"
                yield Problem(("model", "preprocess", name), True, message, close_hint(name, declared))
        if SINGLE in preprocess and self.data.inputs and len(self.data.inputs) > 1:
            message = f"must be a map from input to layers: the data have {len(declared)} inputs"
            yield Problem(("model", "preprocess"), False, message, f"write preprocess: {{{declared[0]}: [...]}}")
        for name in sorted(set(self.model.layer_names) & set(self.data.inputs or ())):
            what = "the model of model.python" if name == OWN_MODEL and not self.model.layers else "a layer"
            message = f"{name!r} is the name of an input and of {what}"
            yield Problem(("data", "inputs", name), True, message, "rename one of them")

    def _sound_problems(self) -> Iterable[Problem]:
        """Spectrograms whose arguments do not fit one another, or the sounds."""
        rate, seconds = self.data.source.sample_rate, self.data.source.seconds
        for layer in (*self.model.preprocess_layers, *self.model.layers):
            for argument, message, hint in sound_problems(layer.layer, rate, seconds):
                yield Problem(("model", *layer.place, argument), False, message, hint)

    @property
    def output_names(self) -> dict[str, str]:
        """The model's outputs: key of `train.heads` to the name of the layer."""
        return {name: name or self.model.own_names[-1] for name in self.train.heads}

    def _output_problems(self) -> Iterable[Problem]:
        """Outputs that are no layers, or have no targets; and whether each loss takes what its layer gives."""
        if not self.model.layers:
            if self.train.outputs is not None:
                message = "a model of a function has one output in this version"
                yield Problem(("train", "outputs"), True, message, "take train.loss and train.metrics")
            else:
                yield from self._target_problems()
            return  # what a function returns is not known before it is run
        layers = {layer.name: layer for layer in self.model.layers}
        unknown = [name for name in self.train.outputs or () if name not in layers]
        if unknown and self._layers_are_known:
            for name in unknown:
                if self.train.heads[name].loss == UNREADABLE:
                    continue  # a stand-in of what is told already
                message = f"no layer is called {name!r}"
                yield Problem(("train", "outputs", name), True, message, close_hint(name, self.model.own_names))
            return  # targets that are not of this name, and a layer that is no output: both follow from it
        if self.data.source.window is None:
            yield from self._target_problems()
        if not unknown and (self.train.outputs is not None or not isinstance(self.data.source.target, dict)):
            for problem in unused_layers(self.model.layers, self.output_names.values()):
                yield replace(problem, path=("model", *problem.path))
        for name, head in self.train.heads.items():
            layer = layers.get(name or self.model.own_names[-1])
            if layer is not None:
                place = ("train", "outputs", name) if name else ("train",)
                which = "the last layer" if layer is self.model.layers[-1] else "the layer"
                yield from self._loss_problems(layer, which, head.loss, place)

    def _part_problems(self) -> Iterable[Problem]:
        """Every part of a batch that is computed by itself needs a sample."""
        devices = len(getattr(self.train.strategy, "devices", None) or ("",))
        parts = self.train.accumulate * devices
        if parts <= self.data.batch_size:
            return
        if self.train.accumulate == 1:
            message = f"a batch of {self.data.batch_size} is not enough for {devices} devices"
            hint = f"take {devices} or more: it is the global batch"
            yield Problem(("data", "batch_size"), False, message, hint)
            return
        on = f" on each of {devices} devices" if devices > 1 else ""
        message = f"{self.train.accumulate} parts of a batch of {self.data.batch_size}{on}"
        hint = f"data.batch_size is the global batch: take {parts} or more, or fewer parts"
        yield Problem(("train", "accumulate"), True, message, hint)

    def _mixing_problems(self) -> Iterable[Problem]:
        """Mixed samples have mixed targets: of classes, or of values, of one output."""
        if self.train.outputs is None and self.train.anomaly is None:
            return
        what = "several outputs" if self.train.outputs else "an autoencoder"
        for index, thing in enumerate(self.data.augment):
            if thing.name in MIXERS:
                yield Problem(("data", "augment", index), True, f"{thing.name} does not mix for {what}", "leave it out")
        if self.train.class_weights is not None and self.train.outputs is not None:
            yield Problem(("train", "class_weights"), True, "are for one output", "leave it out")

    def _target_problems(self) -> Iterable[Problem]:
        """Every output has its targets, and all targets an output."""
        place, target = ("data", "source", "target"), self.data.source.target
        example = "{" + ", ".join(f"{name}: COLUMN" for name in self.train.outputs or ("OUTPUT",)) + "}"
        if self.train.outputs is None:
            if isinstance(target, dict):
                message = "is a map from outputs to columns, and train.outputs is not set"
                yield Problem(place, False, message, f"write train.outputs: {{{next(iter(target))}: {{loss: ...}}}}")
            return
        if not isinstance(target, dict):
            message = f"must say the targets of every output: {', '.join(self.train.outputs)} (got {shown(target)})"
            yield Problem(place, False, message, f"write target: {example}")
            return
        unknown = [name for name in target if name not in self.train.outputs]
        for name in unknown:
            hint = close_hint(name, self.train.outputs)
            yield Problem((*place, name), True, f"train.outputs has no {name!r}", hint)
        for name in self.train.outputs:
            if name not in target and not did_you_mean(name, unknown):
                yield Problem(place, False, f"says no targets for the output {name!r}", f"write target: {example}")

    @staticmethod
    def _loss_problems(layer: LayerSpec, which: str, loss: KerasObject, section: tuple[str, ...]) -> Iterable[Problem]:
        """Whether the loss takes what the layer gives; told only where both are certain."""
        activation = _activation_of(layer)
        if activation is None or not takes_logits(loss):
            return
        place = (*section, "loss", *loss.path_of("from_logits"))
        if loss.from_logits and activation in ("softmax", "sigmoid"):
            message = f"{which} {layer.name!r} ends in {activation}, and from_logits: true applies it again"
            yield Problem(place, False, message, f"take {activation} out of the model, or write from_logits: false")
        if not loss.from_logits and activation == "linear":
            message = f"{which} {layer.name!r} has no activation, so it gives logits; the loss expects probabilities"
            hint = "from_logits: true" if isinstance(loss, OwnThing) else f"{loss.name}: {{from_logits: true}}"
            yield Problem(place, False, message, f"write {hint}")

    def _pattern_problems(self) -> Iterable[Problem]:
        """What a phase names must begin with the name of a layer; what is inside of layers is told when they are."""
        names = self.model.layer_names
        for place, phase in self.train.placed_phases:
            for key, part, pattern in patterns_of(phase):
                begin = pattern.partition("/")[0]
                if self.names_are_known and not matches_one(begin, names):
                    what = "no layer" if begin == pattern else f"no layer is called {begin!r}, so none"
                    message, at_key = f"{what} matches {pattern!r}", part == pattern
                    hint = f"write '.*/{pattern}'" if pattern in _WEIGHTS else close_hint(begin, names)
                    yield Problem(("train", *place, key, part), at_key, message, hint)

    @property
    def code(self) -> tuple[str, ...]:
        """Every class and function of the user's that model and training name, in the order of the spec."""
        heads = self.train.heads.values()
        things = [thing for head in heads for thing in (head.loss, *head.measured)] + list(self.train.callbacks)
        of_training = [thing.reference for thing in things if isinstance(thing, OwnThing)]
        of_training += [self.train.step.python] if self.train.step else []
        return tuple(dict.fromkeys([*self.model.code, *of_training]))

    @property
    def names_are_known(self) -> bool:
        """False where a layer could not be read and so has no name, or layers are told by the data or by a function."""
        return (
            self.model.preprocess != AUTO
            and self._layers_are_known
            and all(layer.layer != UNREADABLE or layer.named for layer in self.model.preprocess_layers)
        )

    @property
    def _layers_are_known(self) -> bool:
        """Likewise of model.layers alone, which the data do not tell."""
        named = (layer.layer != UNREADABLE or layer.named for layer in self.model.layers)
        return self.model.python is None and all(named)


_WEIGHTS = ("kernel", "bias", "gamma", "beta", "embeddings")
"""Names of Keras' weights, which stand after that of their layer."""


def _activation_of(layer: LayerSpec) -> str | None:
    """The activation that the outputs of a layer went through; None where that is not certain."""
    match layer.layer.name:
        case "Softmax":
            return "softmax"
        case "Dense" | "Activation":
            activation = layer.layer.arguments.get("activation")
            return activation.name if isinstance(activation, KerasObject) else "linear"
        case name if name in backbones():
            return answers_with(name, layer.layer.arguments)
        case name if name in ARCHITECTURES and has_head(name, layer.layer.arguments):
            return layer.layer.arguments.get("activation") or "linear"
        case _:
            return None


def to_plain(value: Any) -> Any:
    """A section as plain YAML data that reads back as an equal section; keys without a value are left out."""
    if isinstance(value, KerasObject | LayerSpec | StrategySpec):
        return value.to_spec()
    if isinstance(value, BaseModel):
        fields = (
            (name, field.default, to_plain(getattr(value, name))) for name, field in type(value).model_fields.items()
        )
        written = {name: plain for name, default, plain in fields if plain is not None or default is not None}
        if isinstance(value, ModelSpec) and not value.layers:
            del written["layers"]  # which may not be empty where they are written
        if isinstance(value, TrainSpec) and value.phases is not None:
            for name in OF_PHASES:
                del written[name]  # which may not stand beside phases
        return written
    if isinstance(value, Drop):
        return str(value) if value.relative else value.value
    if isinstance(value, dict):
        plain = {key: to_plain(item) for key, item in value.items()}
        return plain[SINGLE] if set(plain) == {SINGLE} else plain
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value
