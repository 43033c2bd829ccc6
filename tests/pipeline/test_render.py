"""Job files: what they ask for, that their own checkers take them, and that nothing is overwritten."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from mltool import extras
from mltool.cluster.cluster import from_environment
from mltool.errors import UsageError
from mltool.pipeline import render as render_module
from mltool.pipeline.launch import load_for_workers
from mltool.pipeline.render import Job, TpuSlice, job_name, render_job
from mltool.spec.load import load_spec

FOUR = Job(workers=4, max_restarts=2, cpus=3)
IMAGE = "registry/me/mltool:1"


@pytest.fixture
def spec(digits_spec):
    return load_for_workers(digits_spec)


@pytest.fixture
def no_sbatch(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)


def kubernetes(spec, folder, **settings):
    files, checked = render_job(
        spec, "kubernetes", Job(**{"workers": 4, "max_restarts": 2, "image": IMAGE} | settings), folder
    )
    (file,) = files
    return {document["kind"]: document for document in yaml.safe_load_all(file.read_text())}, checked


def test_the_slurm_file_asks_for_the_workers_and_is_a_script(spec, tmp_path, no_sbatch):
    (file, spec_file), checked = render_job(spec, "slurm", Job(4, 2, cpus=3, gpus=1), tmp_path / "my jobs")
    lines = file.read_text().splitlines()
    asked = {"--ntasks=4", "--cpus-per-task=3", "--gpus-per-task=1", "--job-name=tiny"}
    assert asked <= {line.removeprefix("#SBATCH ") for line in lines}
    assert lines[0] == "#!/bin/bash"
    assert f"spec='{spec_file}'" in lines
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    assert checked == "nothing: there is no sbatch here"
    assert load_spec(spec_file) == spec


def test_the_slurm_file_asks_for_no_gpus_without_any(spec, tmp_path, no_sbatch):
    (file, _), _ = render_job(spec, "slurm", FOUR, tmp_path)
    assert "gpu" not in file.read_text()


def test_a_run_that_is_named_is_the_jobs(spec, tmp_path, no_sbatch):
    (file, _), _ = render_job(spec, "slurm", Job(2, 0, run_dir=tmp_path / "a run"), tmp_path)
    assert f"run=${{MLTOOL_RUN_DIR:-'{tmp_path}/a run'}}" in file.read_text().splitlines()


FAKE_SBATCH = """#!/bin/sh
echo "sbatch: error: no partition '$2'" >&2
exit {code}
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [(0, "sbatch --test-only"), (1, "sbatch --test-only, which refused it")],
    ids=["ok", "refused"],
)
def test_sbatch_is_asked_where_it_is(spec, tmp_path, monkeypatch, caplog, code, expected):
    tool = tmp_path / "sbatch"
    tool.write_text(FAKE_SBATCH.format(code=code))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (file, _), checked = render_job(spec, "slurm", FOUR, tmp_path / "jobs")
    assert checked == expected
    warned = [f"sbatch does not take {file} as it is: sbatch: error: no partition '{file}'"] if code else []
    assert [record.getMessage() for record in caplog.records] == warned


def test_an_sbatch_without_a_cluster_has_checked_nothing(spec, tmp_path, monkeypatch, caplog):
    """Slurm's own words, of a machine with its packages and no configuration."""
    tool = tmp_path / "sbatch"
    tool.write_text("#!/bin/sh\necho 'sbatch: fatal: Could not establish a configuration source' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    _, checked = render_job(spec, "slurm", FOUR, tmp_path / "jobs")
    assert checked == "nothing: this machine belongs to no Slurm cluster"
    assert caplog.records == []


def test_the_pods_find_one_another_by_what_the_file_gives_them(spec, tmp_path):
    documents, _ = kubernetes(spec, tmp_path)
    job, service = documents["Job"], documents["Service"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {entry["name"]: entry["value"] for entry in container["env"]} | {"JOB_COMPLETION_INDEX": "2"}
    cluster = from_environment("auto", environ)
    # Kubernetes: a pod of an Indexed Job is called JOB-INDEX, and found as HOSTNAME.SUBDOMAIN.
    port = service["spec"]["ports"][0]["port"]
    assert cluster.address == f"{job['metadata']['name']}-2.{pod['subdomain']}:{port}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (4, 4, 8)


def test_the_pods_have_the_spec(spec, tmp_path):
    documents, _ = kubernetes(spec, tmp_path)
    (tmp_path / "pod.yaml").write_text(documents["ConfigMap"]["data"]["spec.yaml"])
    assert load_spec(tmp_path / "pod.yaml") == spec


def test_gpus_and_tpus_choose_their_nodes(spec, digits_spec, tmp_path):
    pod = kubernetes(spec, tmp_path / "gpu", gpus=2)[0]["Job"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    on_tpu = load_for_workers(digits_spec, on_tpu=True)
    assert on_tpu.train.strategy.NAME == "tpu"
    slice_ = TpuSlice.parse("tpu-v5-lite-podslice:2x4")
    pod = kubernetes(on_tpu, tmp_path / "tpu", workers=1, tpu=slice_)[0]["Job"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x4",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": "8"}


def test_kubernetes_takes_the_file(spec, tmp_path):
    validator = pytest.importorskip("kubernetes_validate")
    for number, settings in enumerate(({}, {"gpus": 2}, {"workers": 1, "tpu": TpuSlice("v5", "2x2")})):
        documents, checked = kubernetes(spec, tmp_path / str(number), **settings)
        assert list(documents) == ["ConfigMap", "Service", "Job"]
        assert checked == f"kubernetes-validate --strict, for Kubernetes {validator.latest_version()}"


def test_what_kubernetes_would_refuse_is_not_written(spec, tmp_path):
    pytest.importorskip("kubernetes_validate")
    with pytest.raises(UsageError, match=r"Kubernetes would refuse the Job: .*is not of type 'integer'"):
        kubernetes(spec, tmp_path, workers="four")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_the_checker_says_so(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "has", lambda _: False)
    assert kubernetes(spec, tmp_path)[1] == "nothing: kubernetes-validate is not installed here"


def test_paths_and_code_that_pods_need_are_told(digits_spec, arrays_file, tmp_path, caplog):
    spec = load_for_workers(digits_spec, [f"data.source={{path: {arrays_file}, target: y}}"])
    kubernetes(spec, tmp_path)
    assert f"the pods need what the spec names, under the same paths: {arrays_file}" in caplog.messages


@pytest.fixture
def arrays_file(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", x=np.zeros((4, 8, 8, 1), np.float32), y=np.arange(4))
    return tmp_path / "a.npz"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Digits_2", "digits-2"),
        ("a" * 60, "a" * 52),
        ("x__-y-", "x-y"),
        ("2stage", "mltool-2stage"),
        ("123", "mltool-123"),
        ("1" * 60, f"mltool-{'1' * 45}"),
    ],
    ids=str,
)
def test_names_are_ones_of_kubernetes(name, expected):
    assert job_name(name) == expected


@pytest.mark.parametrize("name", ["2stage", "123", "on", "null", "1e3", "0x1F", "Y", "-".join("9" * 20)])
def test_every_name_of_a_spec_is_one_that_kubernetes_takes(digits_spec, tmp_path, name):
    spec = load_for_workers(digits_spec, [f"name='{name}'"])
    (file,), _ = render_job(spec, "kubernetes", Job(2, 1, image=IMAGE), tmp_path)
    documents = {document["kind"]: document for document in yaml.safe_load_all(file.read_text())}
    job, pod = documents["Job"]["spec"], documents["Job"]["spec"]["template"]["spec"]
    environ = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    names = {document["metadata"]["name"] for document in documents.values()}
    names |= set(documents["Service"]["spec"]["selector"].values()) | {pod["subdomain"]}
    names |= {environ["MLTOOL_JOB"], environ["MLTOOL_SERVICE"], pod["volumes"][0]["configMap"]["name"]}
    assert names == {job_name(name)}
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", job_name(name))  # RFC 1035, as a service's name must be
    assert (job["completions"], environ["MLTOOL_WORKERS"]) == (2, "2")
    (tmp_path / "pod.yaml").write_text(documents["ConfigMap"]["data"]["spec.yaml"])
    assert load_spec(tmp_path / "pod.yaml") == spec


def test_the_ray_file_is_python_that_trains_the_spec(spec, tmp_path):
    (file, spec_file), checked = render_job(spec, "ray", Job(4, 2, cpus=3, gpus=1), tmp_path)
    text = file.read_text()
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple)
    }
    assert constants["SPEC"] == str(spec_file)
    for part in ("num_workers=4", "use_gpu=True", "resources_per_worker={'CPU': 3, 'GPU': 1}", "max_failures=2"):
        assert part in text
    assert checked.startswith("its syntax")


def test_nothing_is_overwritten_but_an_equal_spec_may_be_there(spec, tmp_path, no_sbatch):
    render_job(spec, "ray", FOUR, tmp_path)
    render_job(spec, "slurm", FOUR, tmp_path)
    with pytest.raises(UsageError, match=r"tiny.slurm.sh is there already; launch overwrites nothing; choose another"):
        render_job(spec, "slurm", FOUR, tmp_path)
    (tmp_path / "tiny.slurm.sh").unlink()
    (tmp_path / "tiny.spec.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"tiny.spec.yaml is there already"):
        render_job(spec, "slurm", FOUR, tmp_path)
    assert not (tmp_path / "tiny.slurm.sh").exists()
    assert (tmp_path / "tiny.spec.yaml").read_text() == "mine"


REFUSED = {
    "no image": ("kubernetes", {}, "Kubernetes runs images: name one that has mltool; --image"),
    "an image for Slurm": ("slurm", {"image": IMAGE}, "--image is for --render kubernetes; leave it out"),
    "TPUs for Ray": ("ray", {"tpu": TpuSlice("v5", "2x2")}, "--tpu is for --render kubernetes"),
    "TPUs of two workers": ("kubernetes", {"image": IMAGE, "tpu": TpuSlice("v5", "2x2")}, "a slice of TPUs is one"),
}


@pytest.mark.parametrize(("scheduler", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_meaning_is_refused(spec, tmp_path, scheduler, settings, message):
    with pytest.raises(UsageError, match=message):
        render_job(spec, scheduler, Job(2, 0, **settings), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["v5", "v5:2", "v5:2x", "v5:0x2", ":2x2", "V5:2x2"])
def test_a_tpu_slice_is_a_kind_and_a_topology(text):
    with pytest.raises(UsageError, match=r"--tpu must be a kind and a topology \(got "):
        TpuSlice.parse(text)


def test_every_template_is_one_that_is_rendered():
    from mltool.assets import asset_folder

    found = {path.name for path in Path(asset_folder("templates")).glob("*.j2")}
    assert found == {f"{name}.j2" for name in render_module._FILES.values()}
