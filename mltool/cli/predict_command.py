"""`mltool predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mltool import console
from mltool.cli.options import ModelArgument, RunOption, examples, verb
from mltool.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from mltool.runs.input_schema import InputSchema
    from mltool.runs.run import Run

SETTINGS = examples(
    "mltool predict                                  test samples of the newest run",
    "mltool predict lite/int8.tflite --input new.npz  arrays named as the model's inputs",
    "mltool predict --input digits.npy --json",
    "mltool predict --input photo.jpg                or a folder of photos; .wav, .txt",
    "mltool predict --input people.csv               columns named as in training; others are left out",
)

Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="An image, sound or text, a folder or .zip of them; a .csv, .tsv or .parquet table; an .npz with an "
        "array for every input, or .npy for the only one.",
        show_default=False,
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", "-n", min=1, help="How many test samples to answer without --input.")
]

Unseen = Annotated[
    bool,
    typer.Option(
        "--allow-unseen", help="Answer categories that training never saw, too: as one unknown, with a remark."
    ),
]


@verb
def command(
    artifact: ModelArgument = None,
    run: RunOption = None,
    input_file: Input = None,
    samples: Samples = 10,
    allow_unseen: Unseen = False,
) -> None:
    """Answer samples with a run, an artifact or an endpoint.

    Samples are given raw: preprocessing is inside of every artifact. Without --input the test samples of the run are
    answered, beside the truth; with a copied lite/ folder those in vectors.npz. What training never saw (a missing
    number, a category) is refused, and values outside of its range are told.
    """
    from mltool.runs.find import find_model

    found, path = find_model(artifact, run)
    schema = _schema(found, path)
    from mltool.inference.predict import predict

    if input_file:
        from mltool.data.given import read_given

        given = read_given(input_file, schema)
        ids, truth = given.numbers, None
        result = predict(path, given.inputs, schema, allow_unseen=allow_unseen, name_of=given.name_of)
    else:
        batch, ids, truth = _test_samples(found, path, schema, samples)
        result = predict(path, batch, schema, allow_unseen=allow_unseen)
    predictions = [
        {"id": number, **record} | ({"truth": truth[index]} if truth else {})
        for index, (number, record) in enumerate(zip(ids, result.records(), strict=True))
    ]
    console.result({"artifact": str(path), "predictions": predictions}, f"{path}\n{_table(predictions)}")


def _table(predictions: list[dict[str, Any]]) -> str:
    """Sample, answer, how probable it is (of a class only), and the truth where it is known."""
    columns = [name for name in ("id", "answer", "probabilities", "score", "truth") if name in predictions[0]]
    heads = {"id": "sample", "probabilities": "probability"}
    return console.table(
        [heads.get(column, column) for column in columns],
        [[_cell(prediction[column], column, prediction["answer"]) for column in columns] for prediction in predictions],
    )


def _cell(value: Any, column: str, answer: Any) -> str:
    if isinstance(value, dict):
        answers = answer if isinstance(answer, dict) else {}
        return ", ".join(f"{name} {_cell(item, column, answers.get(name))}" for name, item in value.items())
    if column == "probabilities":
        if isinstance(answer, list):
            return " ".join(f"{number:.4f}" for number in value)  # of every label: none of them is the answer's
        # A binary model gives the probability of its second label alone.
        return f"{max(value) if len(value) > 1 else max(value[0], 1 - value[0]):.4f}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(item if isinstance(item, str) else f"{item:.6g}" for item in value) or "-"
    return str(value)


def _schema(run: "Run | None", path: Path | str) -> "InputSchema | None":
    from mltool.runs.lite import LiteFolder

    if run is not None:
        return run.input_schema
    if isinstance(path, str):
        return None
    lite = LiteFolder(path.parent)
    return lite.load_schema() if lite.input_file.is_file() else None


def _test_samples(
    run: "Run | None", path: Path | str, schema: "InputSchema | None", count: int
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The first test samples with their truth: from the data of the run, else from the vectors beside the file."""
    from mltool.runs.lite import LiteFolder, input_key

    if run is not None:
        from mltool.evaluation.evaluate import run_data

        data = run_data(run)
        samples = data.take(data.splits.test[:count])
        names = [data.source.name_of(number) if len(data.source.names) else number for number in samples.ids.tolist()]
        return samples.first(count), names, _truth(samples.targets[:], run.input_schema)
    if isinstance(path, str):
        raise UsageError(f"which samples is {path} to answer?", "write --run RUN for its test samples, or --input FILE")
    lite = LiteFolder(path.parent)
    if schema is None or not lite.vectors_file.is_file():
        raise UsageError(
            f"{path} lies in no run and has no vectors.npz beside it", "give samples with --input FILE.npz"
        )
    vectors = lite.load_vectors()
    try:
        batch = {info.name: vectors[input_key(info.name)][:count] for info in schema.inputs}
        # Nobody knows what is right for samples that were made up.
        truth = _truth(vectors["targets"][:count], schema) if "targets" in vectors else []
        return batch, vectors["ids"][:count].tolist(), truth
    except KeyError as error:
        raise ArtifactError(f"{lite.vectors_file} lacks {error}", "copy the whole lite/ folder") from error


def _truth(targets: Any, schema: "InputSchema") -> list[Any]:
    from mltool.inference.answers import by_output, named

    told: dict[str, list[Any]] = {}
    for output, values in zip(schema.outputs, by_output(targets, schema).values(), strict=True):
        if output.labels:
            told[output.name] = named(values, output)
        else:
            told[output.name] = [value[0] if len(value) == 1 else value for value in values.tolist()]
    if len(told) == 1:
        return next(iter(told.values()))
    return [dict(zip(told, values, strict=True)) for values in zip(*told.values(), strict=True)]
