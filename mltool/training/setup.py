"""From a run to all that its training needs: data, model, loop, pipelines; here the spec stops."""

import functools
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.augment import Augmentation, MaskedAugmentation, build_augmentation, build_masked_augmentation
from mltool.data.batches import Batches
from mltool.data.dataset import Dataset, Samples, class_counts, open_dataset
from mltool.data.describe import describe_input
from mltool.data.identity import fingerprint
from mltool.data.mixing import Mixing, build_mixing
from mltool.data.order import steps_per_epoch
from mltool.data.pipeline import Pipeline, Shares
from mltool.data.random_layers import RANDOM_LAYERS
from mltool.data.scan import scan
from mltool.data.scratch import slices_of
from mltool.data.source import Array
from mltool.data.sources.user_function import hash_of_code
from mltool.errors import ArtifactError, DataError, Message, SpecError
from mltool.inference.answers import anomaly_scores
from mltool.inference.keras_predictor import KerasPredictor, load_with_code, require_same_code
from mltool.inspection.model_summary import ModelSummary, summarize
from mltool.models.for_data import build_model_for, output_of_model
from mltool.models.keras_objects import build_keras, reason_of
from mltool.models.outputs import ENDINGS, TargetScale, units_layers
from mltool.models.own_model import KEY, Origin, holder_class, origin_of, require_trainable
from mltool.models.steps import steps_of
from mltool.runs.atomic import finite, sha256_of, write_json
from mltool.runs.input_schema import InputSchema, OutputInfo
from mltool.runs.run import Run
from mltool.spec.backbones import weights_file
from mltool.spec.blocks import MIXERS
from mltool.spec.callbacks import OUR_CALLBACKS
from mltool.spec.spec import Spec, to_plain
from mltool.spec.strategy import CentralStorageStrategy, ParameterServerStrategy
from mltool.spec.task import output_kind
from mltool.training.batch_statistics import BatchStatistics
from mltool.training.callbacks import Callback, EarlyStopping, build_callback
from mltool.training.environment import describe_environment
from mltool.training.head import Head
from mltool.training.loop import Loop
from mltool.training.measures import LoopOptions
from mltool.training.other_loop import OtherLoop
from mltool.training.own_step import load_step
from mltool.training.parameter_server import CoordinatedLoop
from mltool.training.phases import Phase, Trainability, build_phases
from mltool.training.runtime import compiles, make_deterministic, prepare_runtime
from mltool.training.strategy import build_strategy, distribution_of, needs_static_shapes
from mltool.training.user_callbacks import UserCallback, build_user_callbacks
from mltool.training.weight_average import WeightAverage
from mltool.training.workers import Workers

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class Setup:
    """What a training works with.

    Attributes:
        spec: that it was built from: what follows from it alone is not held beside it.
        phases: one after the other; the loop is as the first of them begins.
        trainability: of the model without any freezing.
        statistics: of its BatchNormalization layers.
        workers: the processes that train it.
        summary: of that model.
        average: of the weights of several epochs, from `spec.train.first_averaged` on; None where none is kept.
        data: with its splits.
        loop: holds the model and the optimizer.
        pipeline: training batches.
        whole_batches: of an epoch of training, as one process with one device has them.
        validation: validation batches.
        user_callbacks: those of Keras and of the user's.
    """

    spec: Spec
    phases: tuple[Phase, ...]
    trainability: Trainability
    statistics: BatchStatistics
    workers: Workers
    summary: ModelSummary
    average: WeightAverage | None
    data: Dataset
    loop: Loop | OtherLoop
    pipeline: Pipeline | Batches
    whole_batches: Callable[[int], Iterator[Any]]
    validation: Pipeline | Batches
    user_callbacks: tuple[UserCallback, ...]

    def __post_init__(self) -> None:
        """What callbacks cannot be built is told now, when nothing is recorded yet.

        Raises:
            SpecError: if one has arguments that make no sense.
        """
        self.monitor  # noqa: B018  builds them

    def build_callbacks(self) -> dict[str, Callback]:
        """EarlyStopping and ReduceLROnPlateau of the spec, by Keras' name; anew for every phase."""
        directions = self.loop.greater_is_better()
        return {
            callback.name: build_callback(callback, directions, at=f"train.callbacks.{index}.{callback.name}")
            for index, callback in enumerate(self.spec.train.callbacks)
            if callback.name in OUR_CALLBACKS
        }

    @functools.cached_property
    def monitor(self) -> Callback:
        """The callback whose monitor says which weights are the best."""
        return self.build_callbacks().get("EarlyStopping", EarlyStopping(mode="min"))


def build_setup(run: Run) -> Setup:
    """Reads the data and builds the model of a run, with weights as at its beginning.

    Raises:
        DataError: if the data are missing, damaged, or changed since the run began.
        SpecError: if model, loss or metrics do not fit the data.
    """
    spec = run.spec
    require_same_spec(run, spec)
    require_same_code(run, *spec.code)
    prepare_runtime(spec.train)
    data = open_data(run, spec)
    extras.keras().utils.set_random_seed(spec.seed)
    make_deterministic(spec.train)
    strategy = build_strategy(spec.train.strategy)
    workers = Workers(strategy)
    accumulate = accumulate_of(run, spec)
    shares = _shares_of(workers, accumulate, fill=needs_static_shapes(strategy))
    _require_samples_for_all(spec, shares)
    train = data.split("train")
    if spec.model.code and strategy.num_replicas_in_sync > 1:
        _try_out_elsewhere(spec, data)
    with strategy.scope():
        model, scales = build_model_for(data, spec)
        if spec.model.code and strategy.num_replicas_in_sync == 1:
            _try_out(model, spec)
        trainability, summary = Trainability(model), summarize(model)
        statistics = BatchStatistics(model, spec.model.layers)
        if isinstance(spec.train.strategy, CentralStorageStrategy):
            _require_no_states(model)
        elif shares.total > 1:
            statistics.synchronize()
        phases = build_phases(spec.train, model, steps_per_epoch(len(train), spec.data.batch_size))
    # Before any freezing: of the weights of all phases.
    average = WeightAverage(model.trainable_variables) if spec.train.keep == "average" else None
    trainability.freeze(phases[0].frozen)
    heads = functools.partial(build_heads, spec, data, model, scales)
    own = None if spec.train.step is None else load_step(spec.train.step.python, spec.train.step.arguments or {})
    jit_compile = own is None and compiles(spec.train, model, strategy)
    options = LoopOptions(accumulate, jit_compile, own)
    kind = CoordinatedLoop if isinstance(spec.train.strategy, ParameterServerStrategy) else Loop
    loop = kind(model, phases[0].optimizer, heads=heads, strategy=strategy, options=options)
    distribute = distribution_of(strategy)
    build_pipeline = functools.partial(
        Pipeline,
        train,
        spec.data.batch_size,
        seed=spec.seed,
        augment=_build_augment(spec, data),
        mix=_build_mixing(spec, train),
        class_weights=class_weights_of(spec, data, train),
    )

    def whole_batches(epoch: int) -> Iterator[Any]:
        # A generator: where nobody asks for a batch, the samples are not copied once more.
        yield from build_pipeline().epoch(epoch)

    setup = Setup(
        spec=spec,
        phases=phases,
        trainability=trainability,
        statistics=statistics,
        workers=workers,
        summary=summary,
        average=average,
        data=data,
        loop=loop,
        pipeline=build_pipeline(shares=shares, distribute=distribute),
        whole_batches=whole_batches,
        validation=Pipeline(data.split("validation"), spec.data.batch_size, shares=shares, distribute=distribute),
        user_callbacks=build_user_callbacks(spec.train.callbacks, run.callbacks_folder, writes=workers.is_chief),
    )
    if own is not None:
        # Now, when nothing is recorded yet: what its code raises is told like a mistake of the spec.
        loop.trace(setup.pipeline.epoch(0))
    return setup


def accumulate_of(run: Run, spec: Spec) -> int:
    """In how many parts a batch is computed: as the spec has it, or more since a device ran out of memory."""
    return int(run.manifest.get("accumulate", spec.train.accumulate))


def _require_no_states(model: Any) -> None:
    """Central storage has one copy of every variable, and replicas cannot change one at once.

    Raises:
        SpecError: if training changes a variable that is no weight.
    """
    normalization = extras.keras().layers.BatchNormalization
    found = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, normalization) or any(v.name == "seed_generator_state" for v in layer.variables)
    ]
    if found:
        # The last is the innermost: outer layers have the variables of those in them.
        message = f"cannot train {found[-1].name!r}: every replica would change its state"
        raise SpecError(Message(message, "take mirrored", key="train.strategy.central_storage"))


def _shares_of(workers: Workers, accumulate: int, *, fill: bool) -> Shares:
    return Shares(workers.replicas, workers.first_replica, workers.replicas_here, least=accumulate, fill=fill)


def _require_samples_for_all(spec: Spec, shares: Shares) -> None:
    """A step needs a sample for every part that is computed.

    Raises:
        SpecError: if the global batch is too small.
    """
    needed = shares.total * shares.least
    if spec.data.batch_size < needed:
        parts = f" in {shares.least} parts each (train.accumulate)" if shares.least > 1 else ""
        message = f"{spec.data.batch_size} samples are not enough for {shares.total} replicas{parts}"
        raise SpecError(Message(message, f"take {needed} or more: it is the global batch", key="data.batch_size"))


def build_heads(spec: Spec, data: Dataset, model: Any, scales: Mapping[str, TargetScale]) -> list[Head]:
    """Losses and metrics of every output of a model."""
    return [
        Head(
            key,
            head,
            task=data.meanings[key].task,
            shape=tuple(output_of_model(model, key).shape[1:]),
            target_scale=scales.get(key),
        )
        for key, head in spec.train.heads.items()
    ]


def record_setup(run: Run, setup: Setup) -> None:
    """Writes into the run what it starts from: splits, data, the model and what it takes, versions and devices."""
    data, spec = setup.data, setup.spec
    splits, hashes = data.splits, data.split_hashes()
    document = scan(data)
    errors = [f for f in document["findings"] if f["level"] == "error" and not f["is_asked_for"]]
    if errors and not run.splits_file.is_file():
        raise DataError(Message(finding["message"], finding["hint"]) for finding in errors)
    if not run.splits_file.is_file():
        run.save_splits(data.record())
    write_json(run.scan_file, document)
    write_json(run.model_summary_file, setup.summary.to_json())
    for finding in document["findings"]:
        if finding["level"] != "note":
            logger.warning("%s", finding["message"])
    run.update(
        status="training",
        error=None,
        training_sections=_training_sections(spec),
        input=_input_schema(setup).to_json(),
        data={
            "fingerprint": data.fingerprint,
            "source": data.source.origin,
            "code": _code_of([spec.data.source.python] if spec.data.source.python else []),
            "splits": {
                name: {"samples": len(ids), "hash": fingerprint(hashes[name])} for name, ids in splits.ids().items()
            },
            # Not of the splits: those that a resumed run recorded count none.
            "dropped_copies": document["copies"]["dropped"],
            "kept_copies": document["copies"]["kept"],
        },
        model={"code": _code_of(spec.code), "weights": _weights_of(spec)},
        environment=describe_environment(
            setup.loop.strategy, jit_compile=setup.loop.options.jit_compile, deterministic=spec.train.deterministic
        ),
    )


def record_threshold(run: Run, setup: Setup) -> None:
    """Writes into the run from which score on a sample is an anomaly: a quantile of the training samples' scores.

    Call when the model has the weights that are kept; for other tasks there is nothing to do.
    """
    schema, asked = run.input_schema, setup.spec.train.anomaly
    if asked is None:
        return
    predictor, train = KerasPredictor(setup.loop.model, schema.output_names), setup.data.split("train")
    scores = [
        anomaly_scores(predictor.predict({name: array[part] for name, array in train.inputs.items()})[name_of_output])
        for name_of_output in predictor.outputs
        for part in slices_of(len(train), SCORED_AT_ONCE)
    ]
    threshold = float(np.quantile(np.concatenate(scores), asked.quantile))
    output = replace(schema.outputs[0], threshold=threshold)
    run.update(input=replace(schema, outputs=(output,)).to_json())
    logger.info("the threshold is a score of %.6g: quantile %g of the training samples", threshold, asked.quantile)


SCORED_AT_ONCE = 1024
"""Samples whose differences are held in memory."""


def _code_of(references: Iterable[str]) -> dict[str, str]:
    """Functions and classes of the user's with the hash of the file of each, as run.json has them."""
    return {reference: hash_of_code(reference) for reference in references}


def _weights_of(spec: Spec) -> dict[str, str]:
    """The files that layers take weights from, with their hashes, as run.json has them."""
    layers = (*spec.model.preprocess_layers, *spec.model.layers)
    found = (weights_file(layer.layer.name, layer.layer.arguments) for layer in layers)
    return {file: sha256_of(Path(file)) for file in found if file}


def _training_sections(spec: Spec) -> dict[str, Any]:
    """All that training depends on, as JSON has it."""
    sections = {"seed": spec.seed, "data": spec.data, "model": spec.model, "train": spec.train}
    found: dict[str, Any] = json.loads(json.dumps(finite(to_plain(sections)), default=str))
    return found


def require_same_spec(run: Run, spec: Spec) -> None:
    """A run goes on as it began, or not at all: half of its steps by another spec are nobody's training.

    Raises:
        ArtifactError: if data, model, train or seed of the run's spec.yaml changed since it began; with every key.
    """
    began, now = run.manifest.get("training_sections"), _training_sections(spec)
    if began is None or began == now:
        return
    file, hint = str(run.spec_file), f"train it anew: mltool train {run.spec_file}"
    if not isinstance(began, dict):
        raise ArtifactError(f"{file} began with an older mltool, which kept no more than a hash of it", hint)
    before, after = (dict(_flat(sections)) for sections in (began, now))
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    details = [
        Message(f"was {before.get(key, _ABSENT)} when training began, is {after.get(key, _ABSENT)}", file=file, key=key)
        for key in changed
    ]
    raise ArtifactError([Message(f"{file} was changed since training began", hint), *details])


_ABSENT = "not there"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What is in maps and lists, by dotted keys, as text."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path, json.dumps(value, ensure_ascii=False)
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))


def open_data(run: Run, spec: Spec) -> Dataset:
    """The data of a run, with the splits that it recorded where it did.

    Raises:
        DataError: if they are missing, damaged, or changed since the run began.
    """
    if spec.data.source.known_kind in ("images", None) and extras.backend() == "tensorflow":
        # Needed in a moment anyway; for a folder that may hold images now, because it decodes them too.
        extras.tensorflow()
    data = open_dataset(spec)
    if run.splits_file.is_file():
        began = "input" in run.manifest
        data.use_stored_splits(run.load_splits(), [info.name for info in run.input_schema.inputs] if began else None)
        data.require_fingerprint(run.manifest.get("data", {}).get("fingerprint"))
    return data


def _try_out(model: Any, spec: Spec) -> None:
    """Proves that a model with code of the user's can be trained, saved and loaded before it is: later is too late."""
    origin = origin_of(spec.model)
    if origin is not None:
        require_trainable(model, origin)
        _require_it_can_be_kept(model, spec, origin)


def _try_out_elsewhere(spec: Spec, data: Dataset) -> None:
    """Tries out a model of one replica, outside of the strategy's scope: variables of several are for steps alone.

    Raises:
        SpecError: for a tf.Module: in a function that it traced, replicas were seen to mix up their gradients.
    """
    model, _ = build_model_for(data, spec)
    if any(isinstance(layer, holder_class()) and layer.is_module for layer in model.layers):
        message = "a tf.Module on several devices is not in this version"
        raise SpecError(Message(message, "return a keras.Model, or set CUDA_VISIBLE_DEVICES=0", key=KEY))
    _try_out(model, spec)
    extras.keras().utils.set_random_seed(spec.seed)


def _require_it_can_be_kept(model: Any, spec: Spec, origin: Origin) -> None:
    """Saves a model and loads it back.

    Raises:
        SpecError: if another model comes back, or none.
    """
    hint = "hold its layers in attributes, lists or maps of the model, and build the same model at every call"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        try:
            model.save(file)
            again = load_with_code(file, spec.model)
        except SpecError:
            raise
        except Exception as error:  # Keras' and the user's own
            raise origin.refusal(f"cannot be saved and loaded: {reason_of(error)}", hint) from error
    for one, other in itertools.zip_longest(_saved_variables(model), _saved_variables(again)):
        if one is None or other is None or not np.array_equal(one.numpy(), other.numpy()):
            what = (one if one is not None else other).path
            raise origin.refusal(f"is another one when it is saved and loaded: {what} differs", hint)


def _saved_variables(model: Any) -> list[Any]:
    """Keras files leave the states of Keras' own random layers out; checkpoints have them."""
    return [variable for variable in model.variables if variable.name != "seed_generator_state"]


def _build_augment(spec: Spec, data: Dataset) -> Augmentation | MaskedAugmentation | None:
    layers = [
        RANDOM_LAYERS[thing.name](**thing.arguments)
        if thing.name in RANDOM_LAYERS
        else build_keras(thing, "layers", at=f"data.augment.{index}.{thing.name}")
        for index, thing in enumerate(spec.data.augment)
        if thing.name not in MIXERS
    ]
    if not layers:
        return None
    build = build_masked_augmentation if data.task == "segmentation" else build_augmentation
    return build(layers, spec.seed, sample_shape=next(iter(data.input_shapes.values())))


_TAKE_NUMBERS_FOR_NAMES = ("CategoryEncoding", "Embedding", "IntegerLookup", "TextTransformer")
"""Layers to which a number between two others means a third thing."""


def _build_mixing(spec: Spec, train: Samples) -> Mixing | None:
    things = {i: thing for i, thing in enumerate(spec.data.augment) if thing.name in MIXERS}
    if not things:
        return None
    for layer in (*spec.model.preprocess_layers, *spec.model.layers):
        if layer.layer.name in _TAKE_NUMBERS_FOR_NAMES:
            message = f"what {layer.name!r} ({layer.layer.name}) takes are no amounts, and cannot be mixed"
            index, thing = next(iter(things.items()))
            raise SpecError(Message(message, f"leave {thing.name} out", key=f"data.augment.{index}.{thing.name}"))
    layers = [build_keras(thing, "layers", at=f"data.augment.{i}.{thing.name}") for i, thing in things.items()]
    return build_mixing(layers, spec.seed, train.inputs, first=min(things))


def class_weights_of(spec: Spec, data: Dataset, train: Samples) -> Array | None:
    """How much a training sample of every class counts; None where all count alike.

    `balanced`: samples / (classes * samples of the class), as scikit-learn's `compute_class_weight` has it (King and
    Zeng, "Logistic regression in rare events data", 2001).
    """
    asked = spec.train.class_weights
    if asked is None:
        return None
    if isinstance(asked, str):
        counts = class_counts(train.targets, len(data.labels))
        weights: Array = (len(train) / (len(data.labels) * np.maximum(counts, 1))).astype(np.float32)
        return weights
    return np.asarray([asked.get(label, 1.0) for label in data.labels], dtype=np.float32)


def _input_schema(setup: Setup) -> InputSchema:
    data, spec = setup.data, setup.spec
    train = data.split("train")
    layers = {layer.name for layer in setup.loop.model.layers}
    units = units_layers(data.meanings)
    return InputSchema(
        inputs=tuple(describe_input(name, train, data.source) for name in train.inputs),
        outputs=tuple(
            OutputInfo(
                spec.output_names[key],
                tuple(output_of_model(setup.loop.model, key).shape[1:]),
                meaning.task,
                output_kind(spec.train.heads[key].loss),
                meaning.labels,
                scaled=units[key] in layers,
                columns=meaning.columns,
            )
            for key, meaning in data.meanings.items()
        ),
        missing_markers=tuple(spec.data.source.missing) if spec.data.source.known_kind == "table" else (),
        preprocessing=steps_of(setup.loop.model, [*ENDINGS, *units.values(), *spec.model.own_names]),
    )
