"""From the `data` section to a source: where the spec stops."""

from pathlib import Path

from mltool.data.keras_datasets import load_keras_dataset
from mltool.data.npz import load_npz
from mltool.data.source import Source
from mltool.errors import DataError
from mltool.spec.data import EMBEDDED, DataSpec


def build_source(spec: DataSpec) -> Source:
    """Reads the samples that the `data` section names.

    Raises:
        DataError: if they are missing, damaged or do not fit together.
    """
    inputs = {name: declared.array or name for name, declared in spec.inputs.items()} if spec.inputs else None
    source = spec.source
    if source.path is not None:
        return load_npz(Path(source.path), inputs=inputs, target=source.target or "y")
    if source.dataset in EMBEDDED:
        return _named(load_npz(Path(__file__).with_name(f"{source.dataset}.npz")), source.dataset, inputs)
    return _named(load_keras_dataset(str(source.dataset)), str(source.dataset), inputs)


def _named(source: Source, dataset: str, inputs: dict[str, str] | None) -> Source:
    """The source with its one input called as the spec says."""
    if inputs is None:
        return Source(dataset, source.inputs, source.targets, source.given)
    if len(inputs) != 1:
        raise DataError(f"the data set {dataset!r} has one input, data.inputs declares {len(inputs)}", "declare one")
    array = next(iter(source.inputs.values()))
    return Source(dataset, {next(iter(inputs)): array}, source.targets, source.given)
