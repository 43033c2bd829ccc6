"""The profile of some steps: when it is taken, what it leaves, and what it makes of a trace."""

import json

import pytest

from mltool import extras
from mltool.training.train import train
from mltool.training.trials.profile import Operation, Profile, ProfileSummary, read_trace
from mltool.training.watching import Waits


def test_a_profile_leaves_a_trace_where_tensorboard_looks_and_a_page(features, make_run):
    run = make_run(features)
    result = train(run, profile=True)
    (trace,) = run.events_folder.glob("plugins/profile/*/*.xplane.pb")
    profile = result.profile
    assert profile.trace == str(trace.parent)
    assert json.loads(run.profile_file.read_text()) == json.loads(json.dumps(profile.to_json()))
    assert profile.device == "CPU"
    assert profile.steps == 2, "chunks of 1 and 1 step are the warm-up, of the 4 of an epoch"
    assert 0 <= profile.wait_share <= 1
    kinds = {operation.kind for operation in profile.operations}
    assert any("MatMul" in kind for kind in kinds), kinds
    seconds = [operation.seconds for operation in profile.operations]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(seconds) <= profile.operations_seconds
    assert all(operation.calls <= 2 * profile.steps for operation in profile.operations if not operation.of_data)
    assert not any(operation.name.startswith("while/") for operation in profile.operations if not operation.of_data)


def test_a_profiled_training_ends_as_another_one(features, make_run):
    import keras

    runs = [make_run(features, name) for name in ("with", "without")]
    for run, profile in zip(runs, (True, False), strict=True):
        train(run, profile=profile)
    ones, others = (keras.models.load_model(run.keras_file, compile=False).get_weights() for run in runs)
    assert all((one == other).all() for one, other in zip(ones, others, strict=True))
    assert not runs[1].profile_file.exists()
    assert not (runs[1].events_folder / "plugins").exists()


def test_a_training_that_is_over_before_says_so(features, make_run, caplog):
    features["train"]["epochs"] = 1
    features["data"]["batch_size"] = 108
    run = make_run(features)
    assert train(run, profile=True).profile is None
    assert "training was over before a profile could begin; it needs more steps or epochs" in caplog.text
    assert not run.profile_file.exists()


def test_a_training_that_fails_ends_its_profile(features, make_run, monkeypatch):
    """Another one can be taken in the same process."""
    run = make_run(features)
    with monkeypatch.context() as patched:
        patched.setattr(Profile, "end_chunk", lambda *arguments, **keywords: 1 / 0)
        patched.setattr("mltool.training.trials.profile.WARM_UP", 0)
        with pytest.raises(ZeroDivisionError):
            train(run, profile=True)
    assert train(make_run(features, "next"), profile=True).profile is not None


def test_a_profile_begins_after_the_warm_up_and_ends_with_the_steps_or_the_epoch(tmp_path, monkeypatch):
    calls = []
    profiler = extras.tensorflow().profiler.experimental
    monkeypatch.setattr(profiler, "start", lambda folder, options: calls.append("start"))
    monkeypatch.setattr(profiler, "stop", lambda: calls.append("stop"))
    profile = Profile(tmp_path)
    after_chunks = []
    for steps in (1, 1, 2, 2, 2, 9):
        profile.begin_chunk()
        profile.end_chunk(steps, 1.0, Waits(0.0, 0.0), ends_epoch=False)
        after_chunks.append(list(calls))
    assert after_chunks == [[], [], ["start"], ["start"], ["start", "stop"], ["start", "stop"]]
    calls.clear()
    profile = Profile(tmp_path)
    for _ in range(3):
        profile.begin_chunk()
        profile.end_chunk(1, 1.0, Waits(0.0, 0.0), ends_epoch=True)
    assert calls == ["start", "stop"]


def trace_of(planes, file):
    """Writes a trace: of every plane its lines, of every line its events (name, ps, tf_op)."""
    space = extras.require("tensorflow.tsl.profiler.protobuf.xplane_pb2").XSpace()
    for name, lines in planes.items():
        plane = space.planes.add(name=name)
        plane.stat_metadata[1].name = "tf_op"
        for line_name, events in lines.items():
            line = plane.lines.add(name=line_name)
            for event_name, picoseconds, operation in events:
                key = len(plane.event_metadata) + 1
                plane.event_metadata[key].name = event_name
                event = line.events.add(metadata_id=key, duration_ps=picoseconds)
                if operation:
                    event.stats.add(metadata_id=1, str_value=operation)
    file.write_bytes(space.SerializeToString())
    return file


HOST = {
    "tf_Compute/1": [
        ("while/body/_1/while/net/dense/MatMul:_MklMatMul", 3_000_000_000_000, ""),
        ("while/body/_1/while/net/dense/MatMul:_MklMatMul", 1_000_000_000_000, ""),
        ("while/body/_1/gradient_tape/while/net/dense/MatMul:MatMul", 5_000_000_000_000, ""),
        ("while/body/_1/while/call:StatefulPartitionedCall", 90_000_000_000_000, ""),
        ("ExecutorState::Process", 90_000_000_000_000, ""),
        ("IteratorGetNextOp::DoCompute", 90_000_000_000_000, ""),
    ],
    "tf_data_private_threadpool/2": [("map/strided_slice:StridedSlice", 500_000_000_000, "")],
}


def test_operations_are_added_up_by_name_and_told_from_those_of_the_data(tmp_path):
    device, operations = read_trace(trace_of({"/host:CPU": HOST, "Task Environment": {}}, tmp_path / "t.xplane.pb"))
    assert device == "CPU"
    assert operations == [
        Operation("gradient_tape/net/dense/MatMul", "MatMul", of_data=False, calls=1, seconds=5.0),
        Operation("net/dense/MatMul", "MklMatMul", of_data=False, calls=2, seconds=4.0),
        Operation("map/strided_slice", "StridedSlice", of_data=True, calls=1, seconds=0.5),
    ]


def test_where_a_gpu_computed_its_kernels_are_counted(tmp_path):
    kernels = [
        ("sm80_gemm", 2_000_000_000_000, "while/body/_1/while/net/dense/MatMul:MatMul"),
        ("elementwise", 1_000_000_000_000, "while/body/_1/while/net/dense/MatMul:MatMul"),
        ("memcpy", 9_000_000_000_000, ""),
    ]
    file = trace_of({"/host:CPU": HOST, "/device:GPU:0": {"Stream #13(Compute)": kernels}}, tmp_path / "t.xplane.pb")
    assert read_trace(file) == ("GPU", [Operation("net/dense/MatMul", "MatMul", of_data=False, calls=2, seconds=3.0)])


def test_the_page_is_narrow_and_says_what_the_steps_spent_their_time_on():
    operations = (
        Operation("net/" + "x" * 80 + "/MatMul", "MklMatMul", of_data=False, calls=20, seconds=0.3),
        Operation("map/strided_slice", "StridedSlice", of_data=True, calls=10, seconds=0.1),
    )
    summary = ProfileSummary("events/plugins/profile/1", "CPU", 10, 0.5, 0.25, operations, 7, 0.6)
    title, *rows = summary.text().splitlines()
    assert title == "profile of 10 steps: 50 ms a step, of which 25% is waiting for data; operations on the CPU:"
    assert max(map(len, rows)) <= 120
    assert any(row.split() == ["map/strided_slice", "(data)", "StridedSlice", "10", "10.000", "16.7%"] for row in rows)
    assert any("30.000" in row and "50.0%" in row and "xxx/MatMul" in row for row in rows)
