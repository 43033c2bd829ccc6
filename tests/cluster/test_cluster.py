"""Which worker this is: TF_CONFIG, Slurm and Kubernetes, and every way in which they do not fit together."""

import json
import os
import re

import pytest

from mltool.cluster.cluster import from_environment, local_cluster
from mltool.errors import MachineError

TWO = {"worker": ["a:2222", "b:2222"]}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NODELIST": "node[2,10],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "MLTOOL_PORT": "5000",
}
KUBERNETES = {
    "JOB_COMPLETION_INDEX": "1",
    "MLTOOL_JOB": "digits",
    "MLTOOL_SERVICE": "digits-workers",
    "MLTOOL_WORKERS": "3",
    "MLTOOL_PORT": "2222",
}


def tf_config(cluster, task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_tf_config_comes_back_as_it_was_given():
    document = {"cluster": TWO, "task": {"type": "worker", "index": 1}}
    cluster = from_environment("auto", {"TF_CONFIG": json.dumps(document)})
    assert (cluster.name, cluster.address, cluster.is_chief) == ("worker 1", "b:2222", False)
    assert json.loads(cluster.to_tf_config()) == document


def test_worker_0_is_the_chief_unless_a_task_is_called_so():
    jobs = {"worker": ["a:1", "b:1"], "chief": ["c:1"]}
    assert local_cluster(("a:1", "b:1"), 0).is_chief
    first = from_environment("auto", tf_config(jobs, {"type": "worker", "index": 0}))
    chief = from_environment("auto", tf_config(jobs, {"type": "chief", "index": 0}))
    assert (first.is_chief, chief.is_chief, first.chief) == (False, True, "chief 0")


def test_slurm_numbers_tasks_in_the_order_of_its_nodes():
    cluster = from_environment("auto", SLURM)
    assert cluster.jobs["worker"] == ("node2:5000", "node2:5001", "node10:5000", "node10:5001", "login:5000")
    assert (cluster.index, cluster.address) == (3, "node10:5001")


@pytest.mark.parametrize(
    ("hostlist", "hosts"),
    [
        ("vm", ["vm"]),
        ("n[01-03,7]", ["n01", "n02", "n03", "n7"]),
        ("n[008-011]", ["n008", "n009", "n010", "n011"]),
        ("a-1,b[1-2]-x,c", ["a-1", "b1-x", "b2-x", "c"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
    ],
)
def test_a_short_list_of_nodes_is_written_out(hostlist, hosts):
    environ = {**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": hostlist}
    environ["SLURM_STEP_TASKS_PER_NODE"] = f"1(x{len(hosts)})"
    assert from_environment("slurm", environ).jobs["worker"] == tuple(f"{host}:5000" for host in hosts)


def test_pods_of_an_indexed_job_have_the_names_of_their_service():
    cluster = from_environment("auto", KUBERNETES)
    assert cluster.jobs["worker"] == tuple(f"digits-{index}.digits-workers:2222" for index in range(3))
    assert cluster.name == "worker 1"


def test_tf_config_counts_before_slurm_and_slurm_before_kubernetes():
    both = {**KUBERNETES, **SLURM}
    assert from_environment("auto", both).address == "node10:5001"
    assert from_environment("kubernetes", both).name == "worker 1"
    tf = tf_config(TWO, {"type": "worker", "index": 0})
    assert from_environment("auto", both | tf).address == "a:2222"


MISTAKES = {
    "no JSON": ({"TF_CONFIG": "{"}, "TF_CONFIG is no JSON: Expecting property name"),
    "no map": ({"TF_CONFIG": "[]"}, r"TF_CONFIG must be a map \(got \[\]\)"),
    "no cluster": ({"TF_CONFIG": "{}"}, r"must have a cluster of addresses by task type \(got None\)"),
    "another job": (tf_config({"master": ["a:1"]}, None), r"knows the task types .*worker.* \(got 'master'\)"),
    "no port": (
        tf_config({"worker": ["a"]}, None),
        r"must have a list of host:port under cluster.worker \(got \['a'\]",
    ),
    "one address twice": (tf_config({"worker": ["a:1", "a:1"]}, None), "gives a:1 to two tasks"),
    "two chiefs": (tf_config({"chief": ["a:1", "b:1"]}, None), "has 2 chiefs, and one alone writes"),
    "no task": (tf_config(TWO, None), r"must have a task whose type is one of worker \(got None\)"),
    "index too high": (
        tf_config(TWO, {"type": "worker", "index": 2}),
        r"must have a task.index from 0 to 1, as the cluster has \(got 2\)",
    ),
    "index is no number": (tf_config(TWO, {"type": "worker", "index": True}), r"from 0 to 1.*\(got True\)"),
    "nothing at all": ({}, "nothing says which worker this is: none of TF_CONFIG, SLURM_PROCID, JOB_COMPLETION_INDEX"),
    "a batch script, not srun": ({"SLURM_PROCID": "0"}, "SLURM_STEP_NODELIST is not set; start the workers .* srun"),
    "bad nodes": ({**SLURM, "SLURM_STEP_NODELIST": "n[a-b]"}, r"is no list of nodes \(got 'n\[a-b\]'\)"),
    "bad tasks": ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "two"}, r"is no list of numbers \(got 'two'\)"),
    "nodes and tasks differ": ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2"}, "has 3 nodes and .* 1"),
    "rank too high": ({**SLURM, "SLURM_PROCID": "5"}, r"SLURM_PROCID must be from 0 to 4, of 5 workers \(got '5'\)"),
    "bad port": ({**SLURM, "MLTOOL_PORT": "70000"}, r"MLTOOL_PORT must be from 1 to 65535 \(got '70000'\)"),
    "no service": ({**KUBERNETES, "MLTOOL_SERVICE": ""}, "MLTOOL_SERVICE is not set; write the job with"),
    "no workers": ({**KUBERNETES, "MLTOOL_WORKERS": "0"}, r"MLTOOL_WORKERS must be 1 or more \(got '0'\)"),
}


@pytest.mark.parametrize(("environ", "message"), MISTAKES.values(), ids=MISTAKES)
def test_what_does_not_fit_is_told(environ, message):
    with pytest.raises(MachineError, match=message) as found:
        from_environment("auto", environ)
    assert found.value.exit_code == 10


def test_a_resolver_that_was_asked_for_must_have_its_variables():
    with pytest.raises(MachineError, match="SLURM_PROCID is not set, so this is no worker of slurm"):
        from_environment("slurm", KUBERNETES)


@pytest.mark.parametrize("environ", [SLURM, KUBERNETES], ids=["slurm", "kubernetes"])
def test_tensorflow_reads_what_is_handed_to_it(environ, monkeypatch):
    tf = pytest.importorskip("tensorflow")
    cluster = from_environment("auto", environ)
    monkeypatch.setitem(os.environ, "TF_CONFIG", cluster.to_tf_config())
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert (resolver.task_type, resolver.task_id) == (cluster.task_type, cluster.index)
    assert resolver.cluster_spec().as_dict() == {"worker": list(cluster.jobs["worker"])}
    assert re.fullmatch(r".+:\d+", resolver.cluster_spec().task_address("worker", cluster.index))
