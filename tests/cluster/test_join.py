"""A process becomes a worker where its cluster has the tasks that the strategy needs."""

import json
from pathlib import Path

import pytest

from mltool.cluster import join as joining
from mltool.cluster.join import join
from mltool.errors import MachineError
from mltool.spec.load import load_spec

CHIEF, WORKER, PS, EVALUATOR = ({job: [f"{job}:2222"]} for job in ("chief", "worker", "ps", "evaluator"))

REFUSED = {
    "workers alone": ("parameter_server", WORKER, "parameter_server takes chief and ps and worker tasks, and this"),
    "no chief": ("parameter_server", WORKER | PS, "this cluster has worker, ps; name a chief, each ps and each worker"),
    "an evaluator": ("parameter_server", CHIEF | WORKER | PS | EVALUATOR, "has chief, worker, ps, evaluator; name"),
    "servers": ("multi_worker", CHIEF | WORKER | PS, "multi_worker takes chief and worker tasks, and this cluster has"),
    "another evaluator": (
        "multi_worker",
        WORKER | EVALUATOR,
        "has worker, evaluator; leave all others out of TF_CONFIG",
    ),
}

SPEC = """
name: small
data: {source: {dataset: digits}}
model: {layers: [Flatten, {Dense: {units: 10}}]}
train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SPEC, encoding="utf-8")


@pytest.mark.parametrize(("strategy", "cluster", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_tasks_that_do_not_fit_the_strategy_are_refused_before_anybody_is_waited_for(
    spec, strategy, cluster, message, monkeypatch
):
    monkeypatch.setattr(joining, "wait_for_all", lambda *_: pytest.fail("waits"))
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(MachineError, match=message):
        join(load_spec("s.yaml", [f"train.strategy={strategy}"]))


@pytest.mark.parametrize(
    ("strategy", "cluster", "fails_fast"),
    [("parameter_server", CHIEF | WORKER | PS, "use_caller"), ("multi_worker", CHIEF | WORKER, None)],
)
def test_servers_are_not_waited_for_without_end(spec, strategy, cluster, fails_fast, monkeypatch):
    environment = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})}
    monkeypatch.setattr(joining.os, "environ", environment)
    monkeypatch.setattr(joining, "wait_for_all", lambda *_: None)
    monkeypatch.setattr(joining, "_met", None)
    found = join(load_spec("s.yaml", [f"train.strategy={strategy}"]))
    assert (found.name, environment.get("GRPC_FAIL_FAST")) == ("worker 0", fails_fast)
