"""From a run to all that its training needs: data, model, loop, pipelines; here the spec stops."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.data.batches import Batches
from mltool.data.dataset import Dataset, open_dataset
from mltool.data.order import steps_per_epoch
from mltool.data.pipeline import Pipeline, Shares
from mltool.errors import Message, SpecError
from mltool.inference.keras_predictor import require_same_code
from mltool.inspection.model_summary import ModelSummary, summarize
from mltool.models.for_data import build_model_for, output_of_model
from mltool.models.outputs import TargetScale
from mltool.runs.run import Run
from mltool.runs.training_sections import require_same_spec
from mltool.spec.callbacks import OUR_CALLBACKS
from mltool.spec.spec import Spec
from mltool.spec.strategy import CentralStorageStrategy, ParameterServerStrategy
from mltool.training.callbacks import Callback, EarlyStopping, build_callback
from mltool.training.devices.runtime import compiles, make_deterministic, prepare_runtime
from mltool.training.devices.strategy import build_strategy, distribution_of, needs_static_shapes
from mltool.training.devices.workers import Workers
from mltool.training.loops.batch_statistics import BatchStatistics
from mltool.training.loops.head import Head
from mltool.training.loops.loop import Loop
from mltool.training.loops.measures import LoopOptions
from mltool.training.loops.other_loop import OtherLoop
from mltool.training.loops.own_step import load_step
from mltool.training.loops.parameter_server import CoordinatedLoop
from mltool.training.optimizing.phases import Phase, Trainability, build_phases
from mltool.training.optimizing.weight_average import WeightAverage
from mltool.training.samples import augment_of, class_weights_of, mix_of
from mltool.training.trying_out import try_out, try_out_elsewhere
from mltool.training.user_callbacks import UserCallback, build_user_callbacks


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
        try_out_elsewhere(spec, data)
    with strategy.scope():
        model, scales = build_model_for(data, spec)
        if spec.model.code and strategy.num_replicas_in_sync == 1:
            try_out(model, spec)
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
        augment=augment_of(spec, data),
        mix=mix_of(spec, train),
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
        message = f"a batch of {spec.data.batch_size} is not enough for {shares.total} replicas{parts}"
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
