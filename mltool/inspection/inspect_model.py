"""The model of a spec or of a run, layer by layer."""

from mltool import extras
from mltool.data.dataset import open_dataset
from mltool.inference.keras_predictor import load_keras_model
from mltool.inspection.model_summary import ModelSummary, load_summary, summarize
from mltool.models.for_data import build_model_for
from mltool.runs.run import Run
from mltool.spec.spec import Spec


def inspect_spec(spec: Spec) -> ModelSummary:
    """What the model costs that `mltool train` would train on this spec.

    Args:
        spec: checked; its data are read, because the shapes of the inputs, vocabularies and what `auto` chooses are
            theirs.

    Raises:
        DataError: if the data are missing or damaged.
        SpecError: if the layers do not fit the data, or one another.
        MissingExtraError: if TensorFlow is not installed.
    """
    extras.tensorflow()  # first: what is missing must not show after the data were read
    model, _ = build_model_for(open_dataset(spec), spec)
    return summarize(model)


def inspect_run(run: Run) -> ModelSummary:
    """What the model of a run costs, as training wrote it down; TensorFlow is not needed for it.

    Args:
        run: begun; one that an earlier mltool trained has no such file, and its `model.keras` is loaded.

    Raises:
        ArtifactError: if neither is there, or one is damaged.
    """
    if run.model_summary_file.is_file():
        return load_summary(run.model_summary_file)
    return summarize(load_keras_model(run.require_unchanged(run.keras_file)))
