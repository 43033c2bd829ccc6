"""Runs a quantized file beside its float file and measures every layer; runs inside the child process.

Written here, not taken: `QuantizationDebugger` of TensorFlow needs a debug model that its own converter makes anew (it
tells nothing of the file that is shipped), and `validate()` of litert-quantizer knows only the files that it made, and
neither saturation, channels nor weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mltool.conversion.explain.pairing import Pair, constant_pairs, pair_operators, unpacked_constants
from mltool.conversion.explain.records import LayerError
from mltool.conversion.explain.running import OpenFile, batches_of, read_samples
from mltool.conversion.explain.statistics import CODES, MOST_SNR, Array, Statistics, noise_share, snr_db
from mltool.errors import ArtifactError
from mltool.inspection.model_file import FLOAT_TYPES, Operator, Tensor

MOST_SAMPLES = 128
"""Samples that are run at most; the ratios were measured flat from 32 on."""

COMPARED = 16
"""Samples on which the answers with and without XNNPACK are compared."""

LARGEST_DIFFERENCE = 0.05
"""Mean difference of these answers, as a share of their range, that is taken for rounding.

Measured with LiteRT 2.3 on 199 files: 0.006 at most, but 0.11 to 0.29 on fully connected layers whose weights of 4 bits
have a scale per block, which the kernels without XNNPACK compute wrong without a word.
"""

INPUT = "INPUT"
"""Stands for the operator of an input of the model that is quantized as it is handed in."""


def layer_errors(
    *, float_file: str, quantized_file: str, samples: str, layer_names: list[str], most: int = MOST_SAMPLES
) -> list[dict[str, Any]]:
    """The error of every layer of a quantized file against the float file of the same model.

    Args:
        float_file: the `.tflite` of `quantize: none`, with the batch of the other.
        quantized_file: of any scheme, made by the converter or by litert-quantizer.
        samples: an `.npz` file with one array per input, `[n, ...]`, as the float file takes it.
        layer_names: the Keras layers in the order of the model.
        most: samples that are run at most.

    Returns:
        One `LayerError` a layer, as a dict, in the order in which they run; layers without an operator are not there.

    Raises:
        ArtifactError: a file cannot be run, the samples do not fit, or the files are not of one model.
    """
    wanted, got = OpenFile(float_file, layer_names), OpenFile(quantized_file, layer_names)
    if set(wanted.inputs) != set(got.inputs) or wanted.batch != got.batch:
        told = [f"{one.path}: inputs {sorted(one.inputs)}, batch {one.batch}" for one in (wanted, got)]
        raise ArtifactError(f"these files are not of one model: {'; '.join(told)}", "convert both anew, with one batch")
    pairs = pair_operators(wanted.file, got.file)
    if not any(pair.got for pair in pairs):
        raise ArtifactError(
            f"{got.path} shares no operator with {wanted.path}", "give the float file of the same model"
        )
    measured = [_Measured(pair.wanted, pair.wanted.outputs[0], pair.got.outputs[0]) for pair in pairs if pair.got]
    entries = _entries(wanted, got)
    read = read_samples(samples, wanted.inputs)
    _require_same_answers(got, batches_of(read, got.batch, COMPARED))
    for batch in batches_of(read, wanted.batch, most):
        wanted.run(batch)
        got.run(batch)
        for one in (*measured, *entries):
            one.statistics.add(wanted.values(one.wanted), got.stored(one.got))
    return [asdict(error) for error in _by_layer(wanted, got, pairs, measured, entries)]


def _require_same_answers(got: OpenFile, batches: Iterable[dict[str, Array]]) -> None:
    """Proves that what is measured is what is shipped: without XNNPACK the file must answer as it does with it."""
    shipped = OpenFile(got.path, [], keep=False)
    errors: dict[str, list[tuple[Array, Array]]] = {name: [] for name in shipped.outputs}
    for batch in batches:
        shipped.run(batch)
        got.run(batch)
        for name, answers in errors.items():
            answers.append((shipped.values(shipped.outputs[name]), got.values(got.outputs[name])))
    for name, pairs in errors.items():
        ours, theirs = (np.stack(list(side)).astype(np.float64) for side in zip(*pairs, strict=True))
        difference = float(np.abs(ours - theirs).mean()) / (float(np.ptp(ours)) or 1.0)
        if difference > LARGEST_DIFFERENCE:
            raise ArtifactError(
                f"the layers of {got.path} cannot be measured: without XNNPACK its output {name!r} differs by "
                f"{difference:.0%} of its range, so this runtime computes it wrong",
                "a device without XNNPACK would too; where weights have a scale per block, use one per channel",
            )


class _Measured:
    """A tensor of both files, and how far they are apart.

    Args:
        op: the float file's operator that makes it; for an input, the first one that reads it.
        wanted: of the float file.
        got: of the quantized file.
        name: of the operator that made the quantized one.
    """

    def __init__(self, op: Operator, wanted: Tensor, got: Tensor, name: str = "") -> None:
        self.op, self.wanted, self.got, self.name = op, wanted, got, name or op.op
        quantized = got.dtype in CODES and got.scales
        self.statistics = Statistics(
            got.dtype, got.scales[0] if quantized else None, got.zero_points[0] if quantized else 0
        )


def _entries(wanted: OpenFile, got: OpenFile) -> list[_Measured]:
    """The inputs of the model where they become integers: handed in as such, or by the QUANTIZE that reads them."""
    found = []
    for name, tensor in wanted.inputs.items():
        reader = next((op for op in wanted.file.operators if tensor in op.inputs), None)
        if reader is None or tensor.dtype not in FLOAT_TYPES:
            continue
        given = got.inputs[name]
        if given.scales:
            found.append(_Measured(reader, tensor, given, INPUT))
        for op in got.file.operators:
            if op.op == "QUANTIZE" and given in op.inputs and op.outputs[0].scales:
                found.append(_Measured(reader, tensor, op.outputs[0], op.op))
    return found


def _by_layer(
    wanted: OpenFile,
    got: OpenFile,
    pairs: Sequence[Pair],
    measured: Sequence[_Measured],
    entries: Sequence[_Measured],
) -> list[LayerError]:
    unpacked = unpacked_constants(got.file)
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(_name(pair.wanted), []).append(pair)
    maker = {pair.wanted.outputs[0].index: _name(pair.wanted) for pair in pairs}
    by_tensor = {one.wanted.index: one for one in measured}
    found = []
    for name, group in groups.items():
        inside = {tensor.index for pair in group for tensor in pair.wanted.outputs}
        reads = [
            tensor
            for pair in group
            for tensor in pair.wanted.inputs
            if tensor is not None and tensor.index in maker and tensor.index not in inside
        ]
        here = [one for one in (*entries, *measured) if _name(one.op) == name]
        rounded = [share for one in here if (share := one.statistics.rounding_noise) is not None]
        found.append(
            LayerError(
                layer=name,
                layers=group[-1].wanted.layers,
                reads=tuple(dict.fromkeys(maker[tensor.index] for tensor in reads)),
                op=group[-1].wanted.op,
                rounding_noise=max(rounded, default=None),
                **_of_output(group[-1], by_tensor, reads),
                **_of_channels(here),
                **_of_weights(wanted, got, group, unpacked),
            )
        )
    return found


def _name(op: Operator) -> str:
    return " + ".join(op.layers) or f"{op.op} {op.index}"


def _of_output(last: Pair, by_tensor: dict[int, _Measured], reads: Iterable[Tensor]) -> dict[str, Any]:
    """What is known of the output of a layer, its last operator's."""
    one = by_tensor.get(last.wanted.outputs[0].index)
    if one is None:
        return {}
    found = one.statistics
    before = [by_tensor[tensor.index].statistics.varying_snr_db for tensor in reads if tensor.index in by_tensor]
    input_snr = min(before, default=MOST_SNR)
    return {
        "dtype": found.dtype,
        "scale": found.scale,
        "snr_db": found.snr_db,
        "varying_snr_db": found.varying_snr_db,
        "input_snr_db": input_snr,
        # Noise that is independent adds up, as a share of the signal: Lin, Talathi, Annapureddy, "Fixed Point
        # Quantization of Deep Convolutional Networks", ICML 2016, section 4.
        "own_noise": max(0.0, noise_share(found.varying_snr_db) - noise_share(input_snr)),
        "mean_error": found.mean_error,
        "max_error": found.max_error,
        "range_use": found.range_use,
        "range_needed": found.range_needed,
        "saturation": found.saturation,
    }


def _of_channels(here: Sequence[_Measured]) -> dict[str, Any]:
    """The tensor of a layer in which the most channels are lost to a scale that they share."""
    worst = max(here, key=lambda one: one.statistics.dead_channels, default=None)
    if worst is None or not worst.statistics.dead_channels:
        return {}
    ranges = worst.statistics.channel_ranges
    return {
        "channels": len(ranges),
        "dead_channels": worst.statistics.dead_channels,
        "channel_ranges": (float(ranges.min()), float(ranges.max())),
        "channels_op": worst.name,
        "channels_scale": worst.statistics.scale,
    }


def _of_weights(wanted: OpenFile, got: OpenFile, group: Sequence[Pair], unpacked: dict[int, Tensor]) -> dict[str, Any]:
    """The constants of a layer that lost the most, where they are no longer float32."""
    found = []
    for pair in group:
        for ours, theirs in constant_pairs(pair, unpacked):
            if theirs.dtype == ours.dtype or not (theirs.scales or theirs.dtype in FLOAT_TYPES):
                continue
            values = wanted.values(ours).astype(np.float64)
            stored = got.values(theirs).reshape(values.shape)
            snr = snr_db(float(np.square(values).sum()), float(np.square(values - stored).sum()))
            found.append((snr, theirs, _ratio(values, pair.wanted.op)))
    if not found:
        return {}
    snr, tensor, ratio = min(found, key=lambda entry: entry[0])
    return {
        "weight_dtype": tensor.dtype,
        "weight_snr_db": snr,
        "weight_per_channel": len(tensor.scales) > 1,
        "weight_ratio": ratio,
    }


def _ratio(values: Array, op: str) -> float | None:
    """Greatest over least size of an output channel: the last axis of a depthwise kernel, else the first."""
    if values.ndim < 2:
        return None
    axis = values.ndim - 1 if op in {"DEPTHWISE_CONV_2D", "MUL", "SUB", "ADD", "DIV"} else 0
    sizes = np.abs(values).max(axis=tuple(index for index in range(values.ndim) if index != axis))
    sizes = sizes[sizes > 0]
    return float(sizes.max() / sizes.min()) if len(sizes) > 1 else None
