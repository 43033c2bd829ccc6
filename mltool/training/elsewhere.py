"""Training on another backend of Keras: in a process of its own, as Keras takes one backend a process.

That process needs no TensorFlow. It does all that training does, in the run directory that this process holds the lock
of; here the model is held against TensorFlow afterwards, see `evaluation/other_backend.py`.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mltool import console, extras
from mltool.child import Child, ChildCrashed, ChildError
from mltool.data.batches import Batches
from mltool.errors import Interrupted, MachineError, Message, SpecError, TrainingError
from mltool.evaluation.other_backend import NUM_SAMPLES, save_answers
from mltool.inspection.model_summary import summarize
from mltool.models.build import call_model
from mltool.models.for_data import build_model_for
from mltool.runs.run import Run
from mltool.runs.training_sections import require_same_spec
from mltool.training.checkpoints import State
from mltool.training.devices.workers import Workers
from mltool.training.interrupts import Interrupts
from mltool.training.loops.batch_statistics import BatchStatistics
from mltool.training.loops.other_loop import LOOPS
from mltool.training.optimizing.phases import Trainability, build_phases
from mltool.training.samples import class_weights_of
from mltool.training.setup import Setup, build_heads, open_data


def train_elsewhere(run: Run, interrupts: Interrupts) -> State:
    """Trains a run in a process with the backend of its spec; leaves `model.keras` and what it answers.

    Raises:
        MachineError: if the environment asks for another backend.
        MissingExtraError: if the backend is not installed.
        Interrupted: after Ctrl-C or SIGTERM, which that process was told.
        TrainingError: if that process died.
    """
    backend = run.spec.train.backend
    extras.require_environment(backend)
    extras.require_installed(backend)
    extras.require_installed("keras")
    speech = console.speech()
    descriptors = [] if speech is None else [speech.descriptor]
    with Child(environment={"KERAS_BACKEND": backend}, descriptors=descriptors) as child:
        interrupts.hand_to(child.signal)
        try:
            found = child.call(
                f"{__name__}:train_here",
                directory=str(run.directory),
                backend=backend,
                command=sys.argv,
                speech=speech,
            )
        except ChildError as error:
            if interrupts.asked:  # before that process could note it
                raise Interrupted(f"{interrupts.name}: stopped before the first step") from error
            if isinstance(error, ChildCrashed):
                raise TrainingError(f"training with {backend}: {error}") from error
            raise
        finally:
            interrupts.hand_to(None)
    return State(**found)


def train_here(
    *, directory: str, backend: str, command: Sequence[str], speech: console.Speech | None
) -> dict[str, Any]:
    """What the process of the other backend runs.

    Args:
        directory: of the run, whose lock the caller holds.
        backend: of the spec.
        command: the user's, for the records.
        speech: how it speaks.

    Returns:
        Where training stands at its end, as a map.
    """
    from mltool.training.train import fit

    extras.use_backend(backend)
    console.speak_as(speech)
    sys.argv[:] = command
    run = Run.open(Path(directory))
    with Interrupts() as interrupts:
        setup = build_setup_here(run)
        with _memory_of(backend):
            state = fit(run, setup, interrupts)
        samples = setup.data.split("validation")
        _save_answers(run, setup.loop.model, samples.first(NUM_SAMPLES))
    return asdict(state)


@contextlib.contextmanager
def _memory_of(backend: str) -> Iterator[None]:
    """Inside, a device without memory is the machine's, not a flaw.

    Raises:
        MachineError: if that happens.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError and JAX's XlaRuntimeError are such
        text = str(error).strip()
        if "out of memory" not in text.lower() and "RESOURCE_EXHAUSTED" not in text:
            raise
        message = f"out of memory, in training with {backend}: {text.splitlines()[0][:200]}"
        raise MachineError(message, "make data.batch_size smaller, or take a smaller model") from error


def build_setup_here(run: Run) -> Setup:
    """As `build_setup`, on the backend of this process.

    Raises:
        DataError: if the data are missing, damaged, or changed since the run began.
        SpecError: if model, loss or metrics do not fit the data, or there is text among the inputs.
    """
    spec = run.spec
    require_same_spec(run, spec)
    data = open_data(run, spec)
    texts = [name for name, array in data.source.inputs.items() if array.dtype.kind == "U"]
    if texts:
        message = f"text is for TensorFlow alone, and {texts[0]!r} is text (got {spec.train.backend!r})"
        raise SpecError(Message(message, "take tensorflow", key="train.backend"))
    extras.keras().utils.set_random_seed(spec.seed)
    model, scales = build_model_for(data, spec)
    trainability, summary = Trainability(model), summarize(model)
    train = data.split("train")
    batches = Batches(train, spec.data.batch_size, seed=spec.seed, class_weights=class_weights_of(spec, data, train))
    phases = build_phases(spec.train, model, batches.steps)
    trainability.freeze(phases[0].frozen)
    heads = functools.partial(build_heads, spec, data, model, scales)
    loop = LOOPS[extras.backend()](model, phases[0].optimizer, heads=heads)
    return Setup(
        spec=spec,
        phases=phases,
        trainability=trainability,
        statistics=BatchStatistics(model, spec.model.layers),
        workers=Workers(loop.strategy),
        summary=summary,
        average=None,
        data=data,
        loop=loop,
        pipeline=batches,
        whole_batches=batches.epoch,
        validation=Batches(data.split("validation"), spec.data.batch_size),
        user_callbacks=(),
    )


def _save_answers(run: Run, model: Any, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
    """Writes down what the model answers here, with the weights that are kept."""
    keras = extras.keras()
    names = run.input_schema.output_names
    taken = {name: keras.ops.convert_to_tensor(values) for name, values in inputs.items()}
    with _in_whole_float32():
        outputs = call_model(model, taken, training=False)
    if not isinstance(outputs, dict):
        outputs = {names[0]: outputs}
    save_answers(run, {name: keras.ops.convert_to_numpy(values) for name, values in outputs.items()})


@contextlib.contextmanager
def _in_whole_float32() -> Iterator[None]:
    """Inside, products of float32 are that: by default GPUs keep 10 bits of the mantissa, and TensorFlow's CPU all."""
    if extras.backend() == "jax":
        with extras.require("jax").default_matmul_precision("highest"):
            yield
        return
    cudnn = extras.require("torch").backends.cudnn  # products of matrices are whole by PyTorch's default
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
