"""What is wrong with a quantized file, from the errors of its layers, and what to try; pure."""

from collections.abc import Iterator, Mapping, Sequence

from mltool.conversion.explain.records import Cause, Explanation, Finding, LayerError
from mltool.conversion.explain.statistics import noise_share

OWN_NOISE = 0.05
"""Noise of its own, as a share of what varies in a layer's output, from which on a layer is to blame: 13 dB.

Measured: no layer of the small models of the tests that answer as they should adds more than 0.01, a Normalization of
raw features that collapsed adds 1.
"""

LOST_DB = 13.0
"""What varies in an output below this ratio to the noise is lost, whoever is to blame."""

SATURATION = 0.01
"""Share of values beyond the scale from which on calibration has not seen what the samples hold.

It counts where less than `GOOD_DB` are left: a tenth of a step beyond costs nothing, and was measured on 1 % of the
values of a layer with 37 dB, in a file with 98 % of the answers of its model.
"""

GOOD_DB = 20.0
"""A layer that has kept this much has lost nothing worth a word."""

RANGE_USE = 0.1
"""Share of its scale that a tensor needs, below which something else set the scale: more than 3 of 8 bits are idle."""

WEIGHT_RATIO = 100.0
"""Greatest over least channel of weights that share a scale: the least has 1 of 127 steps left."""

FIXED_SCALE = frozenset({"SOFTMAX", "LOGISTIC", "TANH", "LOG_SOFTMAX", "L2_NORMALIZATION"})
"""Operators whose output has the scale that the specification fixes, whatever was calibrated."""

WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL"})
"""Operators whose weights can have a scale per channel."""


def explanation(name: str, samples: int, layers: Sequence[LayerError]) -> Explanation:
    """All that is to be said of a file.

    Args:
        name: of the file, without its ending.
        samples: that it was run on.
        layers: their errors, in the order in which they run.
    """
    findings = find(layers)
    return Explanation(name, samples, _verdict(layers, findings), tuple(layers), _causes(layers, findings), findings)


def find(layers: Sequence[LayerError]) -> tuple[Finding, ...]:
    """What is wrong, the layer that adds the most noise first; empty when nothing is.

    Args:
        layers: in the order in which they run.
    """
    by_name = {layer.layer: layer for layer in layers}
    ranked = sorted(layers, key=lambda layer: -layer.own_noise)
    found = [finding for layer in ranked for finding in _of_layer(layer, by_name)]
    if not found and (worst := _worst_output(layers)) is not None and _is_lost(worst):
        found = [_adding_up(worst, [layer for layer in ranked if layer.own_noise > 0][:3])]
    return tuple(found)


def _of_layer(layer: LayerError, by_name: Mapping[str, LayerError]) -> Iterator[Finding]:
    """What is wrong with one layer; why, where more than one thing is, the likeliest first."""
    blamed = _is_to_blame(layer, by_name)
    # A scale that is far too wide leaves no channel alive: what set it is the cause, the channels are not.
    found = [(_range(layer) or _channels(layer, by_name) or _weights(layer))] if blamed else []
    if layer.saturation > SATURATION and layer.varying_snr_db is not None and layer.varying_snr_db < GOOD_DB:
        found.append(_saturation(layer))
    told = [finding for finding in found if finding is not None]
    yield from told or ([_resolution(layer)] if blamed else [])


def _is_to_blame(layer: LayerError, by_name: Mapping[str, LayerError]) -> bool:
    """Whether a layer adds much noise of its own: more than it was given, and by something that is quantized in it.

    A layer may also lift what it is given above what varies, as a mean does, and be as exact as it can be. So what is
    quantized in it must account for a tenth of the noise at least.
    """
    given = noise_share(layer.input_snr_db) if layer.input_snr_db is not None else 0.0
    if layer.own_noise <= OWN_NOISE or layer.own_noise < given:
        return False
    weights = noise_share(layer.weight_snr_db) if layer.weight_snr_db is not None else 0.0
    dead = any(by_name[name].dead_channels for name in layer.reads if name in by_name) or layer.dead_channels
    return bool(dead) or _shares_badly(layer) or max(layer.rounding_noise or 0.0, weights) >= 0.1 * layer.own_noise


def _shares_badly(layer: LayerError) -> bool:
    """Whether channels of weights of very different sizes share one scale."""
    return (layer.weight_ratio or 0.0) > WEIGHT_RATIO and not layer.weight_per_channel


def _channels(layer: LayerError, by_name: Mapping[str, LayerError]) -> Finding | None:
    """Channels of very different ranges share one scale, here or in what the layer reads."""
    makers = [layer, *(by_name[name] for name in layer.reads if name in by_name)]
    maker = next((one for one in makers if one.dead_channels and one.channel_ranges), None)
    if maker is None or maker.channel_ranges is None or not maker.channels_scale:
        return None
    least, greatest = maker.channel_ranges
    where = "the input of" if maker.channels_op in {"INPUT", "QUANTIZE"} else f"{maker.channels_op} of"
    message = (
        f"{where} layer {maker.layer!r}: {maker.dead_channels} of {maker.channels} channels have less than 2 bits "
        f"left; ranges of {number(least)} to {number(greatest)} share one scale of {number(maker.channels_scale)} "
        f"a step (the least of them uses {share(least / greatest)} of the greatest)"
    )
    kept = tuple(dict.fromkeys([*maker.layers, *layer.layers]))
    advice = f"keep it in float: keep_float: [{', '.join(kept)}]"
    if maker.channels_op == "INPUT":
        advice += ", with io: float32; or bring the raw values to one scale before the model"
    return Finding(layer.layer, "channels", message, advice, kept)


def _range(layer: LayerError) -> Finding | None:
    """The scale holds far more than what occurs."""
    if layer.range_needed is None or layer.range_needed >= RANGE_USE or layer.op in FIXED_SCALE:
        return None
    message = (
        f"{layer.op} of layer {layer.layer!r} needs {share(layer.range_needed)} of what its scale holds "
        f"({number(layer.scale or 0.0)} a step): values far from all others set it"
    )
    return Finding(layer.layer, "range", message, "look for outliers in the training data, or calibrate with others")


def _weights(layer: LayerError) -> Finding | None:
    """Weights that lost too much: one scale for channels of very different sizes, or 4 bits."""
    where = f"the weights of layer {layer.layer!r}"
    if _shares_badly(layer):
        message = f"{where} have channels that differ {layer.weight_ratio or 0:,.0f} times in size and share one scale"
        if layer.op not in WEIGHTED:
            kept = layer.layers
            return Finding(layer.layer, "weights", message, f"keep it in float: keep_float: [{', '.join(kept)}]", kept)
        return Finding(layer.layer, "weights", message, "use a scale per channel, or quantize: qat")
    if layer.weight_dtype in {"int2", "int4"}:
        message = f"{where} keep {layer.weight_snr_db:.0f} dB in {layer.weight_dtype}"
        return Finding(layer.layer, "weights", message, f"give it 8 bits: layers: {_layers([layer], 'int8')}")
    return None


def _saturation(layer: LayerError) -> Finding:
    message = (
        f"{layer.op} of layer {layer.layer!r}: {share(layer.saturation)} of its values lie outside of what its scale "
        f"holds, and are cut off there"
    )
    return Finding(layer.layer, "saturation", message, "calibrate with more or other samples: raise representative")


def _resolution(layer: LayerError) -> Finding:
    bits = {"int8": "8 bits are", "uint8": "8 bits are", "int16": "16 bits are"}.get(layer.dtype, "its weights are")
    message = (
        f"{layer.op} of layer {layer.layer!r} adds noise of {share(layer.own_noise)} of what varies in it "
        f"({layer.varying_snr_db:.0f} dB are left): {bits} too coarse for its values"
    )
    keep = f"keep_float: [{', '.join(layer.layers)}]"
    if layer.dtype in {"int8", "uint8"}:
        return Finding(
            layer.layer, "resolution", message, f"try layers: {_layers([layer], 'int16x8')}, or {keep}", layer.layers
        )
    return Finding(layer.layer, "resolution", message, f"try {keep}", layer.layers)


def _adding_up(output: LayerError, ranked: Sequence[LayerError]) -> Finding:
    most = ", ".join(f"{layer.layer!r} {share(layer.own_noise)}" for layer in ranked)
    message = (
        f"no single layer rounds too much, but the noise adds up and is lifted on the way: "
        f"{output.varying_snr_db:.0f} dB are left in layer {output.layer!r}; the most is added in {most}"
    )
    narrow = [layer for layer in ranked if layer.weight_dtype in {"int2", "int4"}]
    advice = "try quantize: qat, or float16"
    if narrow:
        advice = f"give some of them 8 bits: layers: {_layers(narrow, 'int8')}"
    elif output.dtype in {"int8", "uint8"}:
        advice = "try int16x8, or quantize: qat"
    return Finding(ranked[0].layer if ranked else output.layer, "resolution", message, advice)


def _layers(layers: Sequence[LayerError], scheme: str) -> str:
    return "{" + ", ".join(f"{name}: {scheme}" for layer in layers for name in layer.layers) + "}"


def _worst_output(layers: Sequence[LayerError]) -> LayerError | None:
    """The worst of the layers that no other reads."""
    read = {name for layer in layers for name in layer.reads}
    ends = [layer for layer in layers if layer.layer not in read and layer.varying_snr_db is not None]
    return min(ends, key=lambda layer: layer.varying_snr_db or 0.0, default=None)


def _is_lost(layer: LayerError) -> bool:
    return layer.varying_snr_db is not None and layer.varying_snr_db < LOST_DB


def _causes(layers: Sequence[LayerError], findings: Sequence[Finding]) -> dict[str, Cause]:
    """A cause for every layer: its first finding's, else whether it only hands on what it was given."""
    causes: dict[str, Cause] = {}
    for layer in layers:
        causes[layer.layer] = "unknown" if layer.snr_db is None else "inherited" if _is_lost(layer) else "none"
    for finding in reversed(findings):
        causes[finding.layer] = finding.cause
    return causes


def _verdict(layers: Sequence[LayerError], findings: Sequence[Finding]) -> str:
    worst = _worst_output(layers)
    if worst is None or worst.varying_snr_db is None:
        return "nothing can be said: no operator that gives the answers was found in both files"
    decibel = f"{worst.varying_snr_db:.0f} dB"
    left = f"of what varies in the answers {decibel} are left"
    if worst.varying_snr_db <= 0:
        left = f"of what varies in the answers nothing is left ({decibel})"
    if findings and _is_lost(worst):
        return f"the answers are lost, the most in layer {findings[0].layer!r}: {left}"
    if findings:
        return f"the answers hold, but layer {findings[0].layer!r} could lose less: {left}"
    most = max(layers, key=lambda layer: layer.own_noise)
    return f"nothing is wrong: {left}, and no layer adds more noise than {most.layer!r} with {share(most.own_noise)}"


def share(value: float) -> str:
    """A share as a percentage of two digits: `< 0.001 %`, `3.2 %`, `41 %`; above 2 as `14 times`."""
    percent = 100 * value
    if percent > 200:
        return f"{value:,.0f} times"
    if 0 < percent < 0.0009995:
        return "< 0.001 %"
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def number(value: float) -> str:
    """Three digits, and as many as there are before the point: `0.973`, `98,239`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
