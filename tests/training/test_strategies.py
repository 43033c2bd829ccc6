"""Strategies, in processes of their own: what a machine lacks is refused, what it has learns as one device."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.errors import MachineError
from mltool.runs.run import Run
from mltool.spec.strategy import TpuStrategy
from mltool.training.devices.strategy import build_strategy

REFUSALS = """
import json, sys
from mltool.errors import MachineError
from mltool.spec.strategy import parse_strategy
from mltool.training.devices.strategy import build_strategy

def refused(value):
    try:
        build_strategy(parse_strategy(value))
    except MachineError as error:
        return str(error)
    return "taken"

found = {name: refused(value) for name, value in json.loads(sys.argv[1]).items()}
print(json.dumps(found))
"""

MISSING: dict[str, tuple[Any, str]] = {
    "no GPUs": ("mirrored", "mirrored takes all GPUs of the machine, and TensorFlow sees none; name devices"),
    "no such GPU": (
        {"mirrored": {"devices": ["GPU:0", "GPU:7"]}},
        "mirrored asks for GPU:0, GPU:7, which this machine does not have; TensorFlow sees CPU:0",
    ),
    "no such one": ({"one_device": {"device": "GPU:3"}}, "one_device asks for GPU:3, which this machine does not have"),
    "no NCCL": (
        {"mirrored": {"devices": ["CPU:0"], "communication": "nccl"}},
        "NCCL is for GPUs, and TensorFlow sees none; take communication: auto",
    ),
    "CPUs too late": (
        {"central_storage": {"devices": ["CPU:0", "CPU:1"]}},
        "2 CPU devices cannot be made: TensorFlow runs already; train in a process of its own",
    ),
    "no TPU": (
        "tpu",
        "this TensorFlow has no TPU, or none is reachable: ",
    ),
    "a TPU that is nowhere": (
        {"tpu": {"name": "grpc://127.0.0.1:9"}},
        "the TPU 'grpc://127.0.0.1:9' does not answer: ",
    ),
    "a TPU without a network": (
        {"tpu": {"name": "mine", "zone": "z", "project": "p"}},
        "the TPU 'mine' cannot be found: ",
    ),
}


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    values = json.dumps({name: value for name, (value, _) in MISSING.items()})
    environ = os.environ | {"NO_GCE_CHECK": "true"}
    done = subprocess.run(
        [sys.executable, "-c", REFUSALS, values], capture_output=True, text=True, timeout=300, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", MISSING)
def test_what_the_machine_does_not_have_is_refused_with_the_reason(refusals, name):
    assert MISSING[name][1] in refusals[name]


NO_KERNEL = (
    "No OpKernel was registered to support Op 'ConfigureDistributedTPU' used by {{node ConfigureDistributedTPU}} with"
    f" these attrs: [tpu_cancellation_closes_chips=2, {'is_global_init=false, ' * 9}]\nRegistered devices: [CPU]"
)
RAW = {
    "no kernel": (NO_KERNEL, "No OpKernel was registered to support Op 'ConfigureDistributedTPU'"),
    "two sentences": ("No TPU in 0.5 s (local). Wait longer.", "No TPU in 0.5 s (local)"),
    "a sentence without an end": ("word " * 100, f"{'word ' * 39}..."),
    "one sentence": ("TPUs not found in the cluster.", "TPUs not found in the cluster"),
    "nothing": ("", "NotFoundError"),
}


@pytest.mark.parametrize(("raw", "said"), RAW.values(), ids=RAW)
def test_why_there_is_no_tpu_is_told_by_one_whole_sentence(raw, said, monkeypatch):
    import tensorflow as tf

    def fail(resolver: Any) -> None:
        raise tf.errors.NotFoundError(None, None, raw)

    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", fail)
    with pytest.raises(MachineError, match="no TPU") as caught:
        build_strategy(TpuStrategy())
    hint = "take strategy: auto, or name a TPU that this machine reaches"
    assert str(caught.value) == f"this TensorFlow has no TPU, or none is reachable: {said}; {hint}"


def train_in_a_process(
    spec: dict[str, Any], folder: Path, name: str, **train: Any
) -> "subprocess.CompletedProcess[str]":
    file = folder / f"{name}.json"
    file.write_text(json.dumps(spec | {"train": spec["train"] | train}), encoding="utf-8")
    command = [sys.executable, "-m", "mltool.cli.main", "train", file, "--run-dir", folder / name]
    # Whatever TensorFlow was told when this process imported it.
    environ = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)


def end_of(folder: Path) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    import keras

    run = Run.open(folder)
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return keras.models.load_model(run.keras_file, compile=False).get_weights(), lines


CONVOLUTION = {"Conv2D": {"filters": 4, "kernel_size": 3, "use_bias": False, "kernel_regularizer": "L2"}}
EQUAL: dict[str, dict[str, Any]] = {
    "clipped SGD with synchronized batch statistics": {
        "layers": [CONVOLUTION, "BatchNormalization", "ReLU", "Flatten", {"Dense": {"units": 3}}],
        "optimizer": {"SGD": {"learning_rate": 0.1, "global_clipnorm": 0.5}},
    },
    "Adam in parts": {
        "layers": [CONVOLUTION, "ReLU", "Flatten", {"Dense": {"units": 3}}],
        "optimizer": {"Adam": {"learning_rate": 0.01}},
        "accumulate": 2,
    },
    "Adam with averages, in parts": {
        "layers": [CONVOLUTION, "ReLU", "Flatten", {"Dense": {"units": 3}}],
        "optimizer": {"Adam": {"learning_rate": 0.01, "use_ema": True, "ema_momentum": 0.9}},
        "accumulate": 2,
    },
}


def spec_of(arrays: Path, layers: list[Any], **train: Any) -> dict[str, Any]:
    """108 training samples in batches of 32: the last has 12."""
    return {
        "name": "equal",
        "seed": 5,
        "data": {"source": {"path": str(arrays)}, "inputs": {"x": {"array": "x"}}, "batch_size": 32},
        "model": {"layers": layers},
        "train": {
            "epochs": 2,
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy", {"F1Score": {"average": "macro"}}],
            **train,
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize("row", EQUAL)
def test_replicas_learn_as_one_device(arrays, tmp_path, row):
    spec = spec_of(arrays, **EQUAL[row])
    strategies = {
        "one": "auto",
        "two": {"mirrored": {"devices": ["CPU:0", "CPU:1"]}},
        "four": {"mirrored": {"devices": ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]}},
    }
    if row == "Adam in parts":
        strategies["central"] = {"central_storage": {"devices": ["CPU:0", "CPU:1"]}}
    for name, strategy in strategies.items():
        done = train_in_a_process(spec, tmp_path, name, strategy=strategy)
        assert done.returncode == 0, done.stderr[-2000:]
    weights, lines = end_of(tmp_path / "one")
    times = ("seconds", "samples_per_second")
    for name in list(strategies)[1:]:
        others, their_lines = end_of(tmp_path / name)
        for one, other in zip(weights, others, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        for line, theirs in zip(lines, their_lines, strict=True):
            kept, other = ({k: v for k, v in one.items() if k not in times} for one in (line, theirs))
            assert kept == pytest.approx(other, abs=1e-5)
    environment = Run.open(tmp_path / "four").manifest["environment"]
    assert (environment["strategy"], environment["replicas"]) == ("MirroredStrategy", 4)


@pytest.mark.slow
def test_states_are_refused_in_central_storage_and_the_run_goes_with_the_refusal(arrays, tmp_path):
    spec = spec_of(arrays, [{"Dropout": {"rate": 0.5, "name": "drop"}}, "Flatten", {"Dense": {"units": 3}}])
    strategy = {"central_storage": {"devices": ["CPU:0", "CPU:1"]}}
    done = train_in_a_process(spec, tmp_path, "central", strategy=strategy)
    assert done.returncode == 3
    assert "train.strategy.central_storage: cannot train 'drop': every replica would change its state" in done.stderr
    assert not (tmp_path / "central").exists()


@pytest.mark.slow
def test_kernels_and_threads_are_set_before_tensorflow_and_recorded(arrays, tmp_path):
    spec = spec_of(arrays, ["Flatten", {"Dense": {"units": 3}}])
    done = train_in_a_process(spec, tmp_path, "run", threads=1, onednn=True, tf32=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Run.open(tmp_path / "run").manifest["environment"]["determinism"] == {
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "threads": 1,
        "tf32": False,
        "jit_compile": False,
        "deterministic": True,
    }


def test_an_environment_that_disagrees_is_refused_and_not_obeyed(monkeypatch):
    from mltool.errors import MachineError
    from mltool.spec.train import TrainSpec
    from mltool.training.devices.runtime import prepare_runtime

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    spec = TrainSpec.model_validate({"loss": "MeanSquaredError", "onednn": False})
    with pytest.raises(
        MachineError, match=r"TF_ENABLE_ONEDNN_OPTS is '1' in the environment, and train\.onednn is false"
    ):
        prepare_runtime(spec)
    prepare_runtime(spec.model_copy(update={"onednn": True}))
    with pytest.raises(MachineError, match=r"train\.threads: 1 cannot be set: TensorFlow runs already"):
        import tensorflow as tf

        tf.constant(1)
        prepare_runtime(spec.model_copy(update={"onednn": True, "threads": 1}))


@contextlib.contextmanager
def served(folder: Path, epochs: int) -> Iterator[dict[str, subprocess.Popen]]:
    """The processes of a training with a parameter server and two workers, by name; what is left of them is ended."""
    from mltool.pipeline.launch import free_ports

    ports = [f"127.0.0.1:{port}" for port in free_ports(4)]
    cluster = {"chief": ports[:1], "ps": ports[1:2], "worker": ports[2:]}
    spec = Path(__file__).parents[2] / "configs/digits.yaml"
    command = [sys.executable, "-m", "mltool.cli.main", "train", spec, "--run-dir", folder / "run"]
    command += ["--set", "train.strategy=parameter_server", "--set", f"train.epochs={epochs}"]
    started: dict[str, subprocess.Popen] = {}
    try:
        for job, index in (("ps", 0), ("worker", 0), ("worker", 1), ("chief", 0)):
            config = json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})
            started[f"{job} {index}"] = subprocess.Popen(
                command, env=os.environ | {"TF_CONFIG": config}, stderr=subprocess.PIPE, text=True
            )
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_parameter_servers_reach_the_same_accuracy_and_end_when_the_chief_is_done(tmp_path):
    """Asynchronous: not the same bits, and no worse a model."""
    with served(tmp_path, epochs=12) as processes:
        chief = processes.pop("chief 0")
        _, err = chief.communicate(timeout=300)
        assert chief.returncode == 0, err[-2000:]
        for name, process in processes.items():
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err[-2000:]
            assert f"{name}: the chief at 127.0.0.1:" in err
    _, lines = end_of(tmp_path / "run")
    assert max(line["val_accuracy"] for line in lines) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "tasks", [("worker", "worker"), ("chief", "worker")], ids=["two workers", "a chief and a worker"]
)
def test_two_processes_learn_as_one_device(arrays, tmp_path, tasks):
    from mltool.pipeline.launch import free_ports

    row = EQUAL["clipped SGD with synchronized batch statistics"]
    spec = spec_of(arrays, **row)
    assert train_in_a_process(spec, tmp_path, "one").returncode == 0
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster: dict[str, list[str]] = {}
    for task, address in zip(tasks, addresses, strict=True):
        cluster.setdefault(task, []).append(address)
    file = tmp_path / "two.json"
    file.write_text(json.dumps(spec), encoding="utf-8")  # strategy: auto, which takes what TF_CONFIG names
    command = [sys.executable, "-m", "mltool.cli.main", "train", file, "--run-dir", tmp_path / "two"]
    processes = []
    for number, task in enumerate(tasks):
        place = number - tasks.index(task)
        environ = os.environ | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": task, "index": place}})}
        processes.append(subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-2000:]
    for one, other in zip(end_of(tmp_path / "one")[0], end_of(tmp_path / "two")[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert Run.open(tmp_path / "two").manifest["environment"]["replicas"] == 2


@pytest.mark.slow
def test_a_parameter_server_that_is_lost_is_told_in_one_message(tmp_path):
    with served(tmp_path, epochs=100_000) as processes:
        chief = processes["chief 0"]
        for line in chief.stderr:
            if "epoch 2/" in line:
                break
        processes["ps 0"].kill()
        _, err = chief.communicate(timeout=120)
    assert chief.returncode == 6, err[-2000:]
    assert "another worker was lost: " in err
    assert "Traceback" not in err
