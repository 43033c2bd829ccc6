"""A SavedModel that bare TensorFlow loads, and that answers as the Keras model."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mltool.errors import ArtifactError, VerificationError
from mltool.exporting import export as room
from mltool.exporting.export import export
from mltool.runs.run import Run

BARE = """
import json, sys
sys.modules["keras"] = sys.modules["mltool"] = None
import numpy as np, tensorflow as tf
shown = {}
for folder, answers in json.loads(sys.argv[1]):
    signature = tf.saved_model.load(folder).signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    shown[folder] = {
        "inputs": {name: [spec.dtype.name, spec.shape.as_list()] for name, spec in specs.items()},
        "outputs": {name: [s.dtype.name, s.shape.as_list()] for name, s in signature.structured_outputs.items()},
    }
    with np.load(answers) as stored:
        inputs = {name: tf.constant(stored["input:" + name]) for name in specs}
        found = next(iter(signature(**inputs).values())).numpy()
        shown[folder]["error"] = float(np.abs(found - stored["keras"]).max())
print(json.dumps(shown))
"""


def test_bare_tensorflow_loads_it_with_the_names_and_types_of_the_inputs(made, made_pair):
    pairs = [[str(folder / "saved_model/1"), str(folder / "lite/vectors.npz")] for folder in (made, made_pair)]
    ended = subprocess.run(
        [sys.executable, "-c", BARE, json.dumps(pairs)], capture_output=True, text=True, timeout=120, check=True
    )
    shown = json.loads(ended.stdout.strip().splitlines()[-1])
    digits, pair = (shown[folder] for folder, _ in pairs)
    assert digits["inputs"] == {"image": ["float32", [None, 8, 8, 1]]}
    assert digits["outputs"] == {"scores": ["float32", [None, 10]]}
    assert pair["inputs"] == {"left": ["float32", [None, 3]], "right": ["float32", [None, 2]]}
    assert pair["outputs"] == {"value": ["float32", [None, 1]]}
    assert max(digits["error"], pair["error"]) < 1e-5


def test_equal_inputs_are_nothing_to_do_and_force_makes_it_again(run, caplog):
    caplog.set_level("INFO", "mltool")
    assert export(run).agreement is None
    assert "nothing to do" in caplog.text
    made = export(run, force=True)
    assert made.agreement.max_error < 1e-4
    assert run.require_unchanged(run.saved_model_folder) == made.path


def test_a_model_or_an_export_that_was_changed_is_refused(run):
    with (run.saved_model_folder / "variables/variables.data-00000-of-00001").open("r+b") as file:
        file.write(b"other")
    with pytest.raises(ArtifactError, match=r"saved_model/1 was changed since it was made"):
        export(run)
    export(run, force=True)
    run.keras_file.write_bytes(run.keras_file.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"model\.keras was changed since it was made"):
        export(run, force=True)


def test_a_run_that_was_not_trained_has_nothing_to_export(made, tmp_path):
    bare = Run.create(Run.open(made).spec, tmp_path / "new")
    with pytest.raises(ArtifactError, match=r"model\.keras is missing"):
        export(bare)


def test_an_export_that_answers_otherwise_leaves_nothing(run, monkeypatch):
    honest = room.write_saved_model

    def dishonest(model, output, folder):
        weights = model.get_weights()
        model.set_weights([weight * 1.01 for weight in weights])
        honest(model, output, folder)
        model.set_weights(weights)

    monkeypatch.setattr(room, "write_saved_model", dishonest)
    before = run.artifact_hash(run.saved_model_folder)
    with pytest.raises(VerificationError, match="does not answer as the Keras model: max error") as caught:
        export(run, force=True)
    assert caught.value.exit_code == 8
    assert run.require_unchanged(run.saved_model_folder)
    assert run.artifact_hash(run.saved_model_folder) == before
    assert not list(run.directory.rglob("*.part*"))


def test_large_outputs_are_held_to_their_own_size(run, monkeypatch):
    """A regression of 1,000,000 to 1,000,010 differs by more than a hundred-thousandth of 10 in its last bits."""
    monkeypatch.setattr(room, "KerasPredictor", lambda *_: None)
    monkeypatch.setattr(room, "SavedModelPredictor", lambda *_: None)
    monkeypatch.setattr(room, "output_of", lambda *_: next(values))
    values = iter([np.float32([[1e6], [1e6 + 10]]), np.float32([[1e6 + 0.0625], [1e6 + 10]])])
    assert room._verify(run, None, run.saved_model_folder).max_error == 0.0625
    values = iter([np.float32([[1e6], [1e6 + 10]]), np.float32([[1e6 + 20], [1e6 + 10]])])
    with pytest.raises(VerificationError, match="max error 20"):
        room._verify(run, None, run.saved_model_folder)
