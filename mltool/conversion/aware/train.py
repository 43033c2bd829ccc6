"""Trains a run's model on for what its conversion will do to it; runs inside the child process (`mltool/child.py`)."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.conversion.aware.annotate import Plan, plan_of
from mltool.conversion.aware.fit import Fit, Lessons
from mltool.conversion.aware.measured import measured
from mltool.conversion.aware.rebuild import Rebuilt, rebuild, require_equal
from mltool.conversion.aware.scheme import Granularity
from mltool.conversion.aware.stages import (
    Kept,
    Stage,
    cluster_stage,
    layers_for,
    prune_stage,
    quantize_stage,
)
from mltool.conversion.aware.written import write_model, write_saved_model
from mltool.data.dataset import Dataset
from mltool.data.pipeline import Pipeline
from mltool.errors import ConversionError
from mltool.evaluation.evaluate import run_data
from mltool.inference.keras_predictor import load_keras_model
from mltool.models.outputs import TargetScale, units_layers
from mltool.runs.atomic import sha256_of
from mltool.runs.run import Run
from mltool.training.devices.runtime import make_deterministic, prepare_runtime
from mltool.training.samples import augment_of, class_weights_of, mix_of
from mltool.training.setup import build_heads

logger = logging.getLogger("mltool")

TRAIN_AWARE = "mltool.conversion.aware.train:train_aware"
"""What the child is asked to call."""

COMPARED = 64
"""Training samples on which the rebuilt model must answer as the run's."""


def train_aware(
    *,
    run: str,
    folder: str,
    epochs: int,
    learning_rate: float,
    quantize: bool = True,
    granularity: Granularity = "channel",
    prune: float | str | None = None,
    cluster: int | None = None,
    keep_float: Sequence[str] = (),
    seed: int | None = None,
) -> dict[str, Any]:
    """Prunes, clusters and quantizes while training, in this order, each stage for `epochs` epochs.

    The same arguments give the same bytes of weights. Batches, their order, augmentation and mixing are those of the
    run's training; its schedules, callbacks, phases and optimizer are not: Adam has one learning rate.

    Args:
        run: its directory; trained, unchanged.
        folder: where `saved_model/` (what to convert: float inputs, fake quantization inside) and `model.keras` (a
            plain model of Keras 3 with the new weights) are written; made if missing.
        epochs: of every stage.
        learning_rate: of Adam.
        quantize: whether the last stage trains with fake quantization.
        granularity: of the scales of weights: one a `channel` (of a Dense or depthwise layer one a layer), or one a
            `tensor`: then BatchNormalization is folded first, as it will be in the file.
        prune: share of the weights that are taken away, in (0, 1), or `2:4`.
        cluster: values that the weights of a layer may have.
        keep_float: names of layers without fake quantization.
        seed: of order, augmentation and dropout; the run's when None.

    Returns:
        `history` (see `Fit.run`), `quantized` and `left` (layers, and reasons), `layer_names` (of the new model, in
        order, for the converter and for reading back), `preprocess_layers` (those among them that prepare inputs),
        `difference` (of the rebuilt model), `weights` (measured: see `measured`), `keras_sha256` (of `model.keras`),
        `seconds`.

    Raises:
        MissingExtraError: if tf_keras or tensorflow-model-optimization is not installed.
        ConversionError: if the model cannot be rebuilt, or no layer fits what is asked for.
        TrainingError: if the loss is no longer a number.
        ArtifactError: if the run was not trained, or its model was changed.
        DataError: if its data changed.
    """
    started = time.perf_counter()
    if not quantize and prune is None and cluster is None:
        raise ConversionError("nothing to train for", "quantize, prune or cluster")
    for module in ("tf_keras", "tensorflow_model_optimization"):
        extras.require_installed(module)
    opened = Run.open(Path(run))
    opened.require_unchanged(opened.keras_file)
    prepare_runtime(opened.spec.train)
    data = run_data(opened)
    make_deterministic(opened.spec.train)
    seed = opened.spec.seed if seed is None else seed
    model = load_keras_model(opened.keras_file)
    outputs = _outputs(model, opened)
    extras.require("tf_keras").utils.set_random_seed(seed)
    rebuilt, plan, difference = _rebuilt(model, outputs, data, keep_float, fold=quantize and granularity == "tensor")
    work = _Work(rebuilt, _lessons(opened, data, model, learning_rate, seed), epochs)
    if prune is not None:
        work.prune(prune)
    if cluster is not None:
        work.cluster(cluster, keeps_zeros=prune is not None)
    if quantize:
        work.quantize(plan, granularity)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_saved_model(rebuilt, work.model, target / "saved_model")
    write_model(model, rebuilt, work.model, target / "model.keras")
    return {
        "history": work.history,
        "quantized": list(plan.quantized) if quantize else [],
        "left": plan.left if quantize else {},
        "layer_names": [layer.name for layer in work.model.layers if type(layer).__name__ != "InputLayer"],
        "preprocess_layers": _preprocess_layers(opened, work.model),
        "difference": difference,
        "weights": measured(work.model),
        "keras_sha256": sha256_of(target / "model.keras"),
        "seconds": round(time.perf_counter() - started, 3),
    }


class _Work:
    """The stages, one after the other."""

    def __init__(self, rebuilt: Rebuilt, lessons: Lessons, epochs: int) -> None:
        self.model, self.history = rebuilt.model, list[dict[str, Any]]()
        self._rebuilt, self._lessons, self._epochs = rebuilt, lessons, epochs
        self._pruned: tuple[str, ...] = ()
        self._clustered: tuple[str, ...] = ()

    def prune(self, sparsity: float | str) -> None:
        self._pruned = layers_for("prune", self.model, sparsity=sparsity, clusters=None)
        steps = self._lessons.pipeline.steps
        self._run(prune_stage(self.model, sparsity, self._pruned, epochs=self._epochs, steps=steps))

    def cluster(self, clusters: int, *, keeps_zeros: bool) -> None:
        self._clustered = layers_for("cluster", self.model, sparsity=None, clusters=clusters)
        self._run(cluster_stage(self.model, clusters, self._clustered, keeps_zeros=keeps_zeros))

    def quantize(self, plan: Plan, granularity: Granularity) -> None:
        stage = quantize_stage(self.model, plan, granularity)
        self._run(stage, Kept(stage.model, self._pruned, self._clustered))

    def _run(self, stage: Stage, kept: Kept | None = None) -> None:
        fit = Fit(stage, self._rebuilt, self._lessons, kept)
        self.history += fit.run(epochs=self._epochs, first_epoch=len(self.history))
        self.model = stage.finish(stage.model)


def _rebuilt(
    model: Any, outputs: Mapping[str, Any], data: Dataset, keep_float: Sequence[str], *, fold: bool
) -> tuple[Rebuilt, Plan, float]:
    """The model in tf_keras, proven equal, with what comes before quantized layers guarded."""
    plan = plan_of(rebuild(model, outputs).model, keep_float, fold=fold)
    rebuilt = rebuild(model, outputs, plan.guarded, plan.folded)
    return rebuilt, plan, require_equal(model, rebuilt, data.split("train").first(COMPARED))


def _outputs(model: Any, run: Run) -> dict[str, Any]:
    """The output tensors by the names that they have in every artifact; of several outputs, their keys."""
    if isinstance(model.output, dict):
        return dict(model.output)
    return dict(zip(run.input_schema.output_names, model.outputs, strict=True))


def _lessons(run: Run, data: Dataset, model: Any, learning_rate: float, seed: int) -> Lessons:
    spec = run.spec if run.spec.seed == seed else run.spec.model_copy(update={"seed": seed})
    train = data.split("train")
    pipeline = Pipeline(
        train,
        spec.data.batch_size,
        seed=seed,
        augment=augment_of(spec, data),
        mix=mix_of(spec, train),
        class_weights=class_weights_of(spec, data, train),
    )
    heads = build_heads(spec, data, model, _target_scales(model, list(spec.train.heads)))
    return Lessons(heads, pipeline, Pipeline(data.split("validation"), spec.data.batch_size), learning_rate)


def _target_scales(model: Any, keys: Sequence[str]) -> dict[str, TargetScale]:
    """What targets were scaled by, as the layers of original units tell."""
    found = {}
    for key, name in units_layers(keys).items():
        layer = next((layer for layer in model.layers if layer.name == name), None)
        if layer is not None:
            found[key] = TargetScale(tuple(layer.offset), tuple(layer.scale))
    return found


def _preprocess_layers(run: Run, model: Any) -> list[str]:
    """Names of the layers of a model that are, or are part of, a preprocessing step of the run."""
    steps = [step.name for step in run.input_schema.preprocessing]
    return [
        layer.name for layer in model.layers if any(layer.name == s or layer.name.startswith(f"{s}/") for s in steps)
    ]
