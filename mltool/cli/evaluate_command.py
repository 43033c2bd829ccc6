"""`mltool evaluate`."""

from mltool import console
from mltool.cli.options import ArtifactArgument, examples, verb
from mltool.errors import UsageError

SETTINGS = examples(
    "mltool evaluate                       the newest run under ./runs",
    "mltool evaluate runs/digits/20261123-101500-k3v9/lite/int8.tflite --json",
)


@verb
def command(artifact: ArtifactArgument = None) -> None:
    """Measure a run or an artifact on the test split.

    The same code measures every artifact, on the samples that the run recorded. For a run it is its Keras model, and
    the result is kept in evaluation.json.
    """
    from mltool.runs.find import find_artifact

    run, path = find_artifact(artifact)
    if run is None:
        raise UsageError(
            f"{path} lies in no run, so there is no test split to measure it on", "mltool verify replays its vectors"
        )
    from mltool.evaluation.evaluate import evaluate

    result = evaluate(run, path)
    shown = "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()) or "the spec has no metrics"
    console.result(result.to_json(), f"{path}\n{result.split}, {result.samples} samples: {shown}")
