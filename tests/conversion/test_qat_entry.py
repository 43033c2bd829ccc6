"""`quantize: qat`: a run's model is trained on, converted, and held against the model that was trained."""

import json
import shutil

import keras
import pytest

from mltool.conversion.convert import convert
from mltool.errors import ConversionError, VerificationError
from mltool.evaluation.verify import verify
from mltool.runs.lite import LiteFolder
from mltool.spec.convert import ConvertSpec


def entry(**keys):
    return ConvertSpec.model_validate({"quantize": "qat", "qat": {"epochs": 1, "learning_rate": 1e-3}, **keys})


@pytest.mark.slow
def test_the_model_is_trained_on_converted_and_kept_beside_its_file(run, tmp_path):
    before = run.keras_file.read_bytes()
    (made,) = convert(run, [entry()])
    lite = LiteFolder(run.lite_folder)
    record = lite.load_record("qat")
    assert record.verified
    assert record.quantize == "qat"
    assert len(record.training["history"]) == 1
    assert set(record.training["quantized"]) >= {"first", "scores"}
    assert set(record.read_back["operator_share_by_dtype"]) - {"edge"} == {"int8"}
    # What every drop is measured against stays; the trained model lies beside the file and loads in plain Keras.
    assert run.keras_file.read_bytes() == before
    assert record.metric["reference"] == json.loads(run.evaluation_file.read_text())["metrics"]["accuracy"]
    assert keras.models.load_model(lite.keras_file("qat")).count_params() > 0
    assert [verdict.kept for verdict in verify(made.path)] == [True]
    # Alone on a device it is replayed.
    alone = tmp_path / "device"
    shutil.copytree(run.lite_folder, alone)
    assert [verdict.kept for verdict in verify(alone / "qat.tflite")] == [True]
    (again,) = convert(run, [entry()])
    assert not again.made
    (other,) = convert(run, [entry(qat={"epochs": 1, "learning_rate": 2e-3})])
    assert other.made
    # A file that is made anew by another scheme of that name leaves nothing of this one.
    with pytest.raises(VerificationError, match="max_size"):
        convert(run, [entry()], limits={"max_size": 100}, force=True)
    assert not lite.keras_file("qat").exists()
    assert LiteFolder(lite.rejected_folder).keras_file("qat").is_file()


def test_a_model_that_learns_too_fast_is_told_with_the_entry(run):
    with pytest.raises(ConversionError, match=r"^qat: keep_float names no layer|^qat: .*nowhere"):
        convert(run, [entry(keep_float=["nowhere"])])
