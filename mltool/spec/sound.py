"""Arguments of `LogMel` and `MFCC` that do not fit one another, or the data, told before anything is imported."""

from collections.abc import Iterator

from mltool.spec.blocks import BLOCKS, MAX_FFT_LENGTH, MIN_WINDOW
from mltool.spec.catalogue import KerasObject


def sound_problems(
    block: KerasObject, sample_rate: int | None, seconds: float | None
) -> Iterator[tuple[str, str, str]]:
    """What is wrong, as (argument, message, hint).

    Args:
        block: of any name; others than LogMel and MFCC have no such problems.
        sample_rate: of the data, per second, where the spec tells it.
        seconds: length of a sample, where the spec tells it.
    """
    if block.name not in ("LogMel", "MFCC") or not isinstance(block.arguments.get("fft_length"), int):
        return
    defaults = {name: default for name, (_, *rest) in BLOCKS[block.name]["arguments"].items() for default in rest}
    given = {**defaults, **block.arguments}
    fft_length, window = given["fft_length"], given["sequence_length"] or given["fft_length"]
    rate = given["sample_rate"] or sample_rate
    if fft_length > MAX_FFT_LENGTH:
        yield "fft_length", f"must be at most {MAX_FFT_LENGTH} (got {fft_length})", "take a shorter frame"
    elif fft_length & (fft_length - 1):
        near = 1 << fft_length.bit_length()
        hint = f"write fft_length: {near}, sequence_length: {fft_length}"
        yield "fft_length", f"must be a power of two (got {fft_length})", hint
    elif rate and seconds and fft_length > round(rate * seconds):
        yield (
            "fft_length",
            f"{fft_length} is more than the {round(rate * seconds)} values of a sound",
            "take a shorter frame",
        )
    if window > fft_length:
        yield "sequence_length", f"must be at most fft_length, {fft_length} (got {window})", "take a longer fft_length"
    elif window < MIN_WINDOW:
        yield "sequence_length", f"must be at least {MIN_WINDOW} (got {window})", "no window is so short"
    high = given["max_freq"] or (rate and rate / 2)
    if high and given["min_freq"] >= high:
        yield "min_freq", f"must be below the highest frequency, {high:g} Hz (got {given['min_freq']:g})", "lower it"
    if rate and given["max_freq"] and given["max_freq"] > rate / 2:
        message = f"must be at most half of the sample rate, {rate / 2:g} Hz (got {given['max_freq']:g})"
        yield "max_freq", message, "leave it out: it is that half then"
    if given["sample_rate"] and sample_rate and given["sample_rate"] != sample_rate:
        message = f"is {given['sample_rate']}, data.source.sample_rate is {sample_rate}"
        yield "sample_rate", message, "leave it out"
    if given.get("num_mfcc", 0) > given["num_mel_bins"]:
        message = f"must be at most num_mel_bins, {given['num_mel_bins']} (got {given['num_mfcc']})"
        yield "num_mfcc", message, "take more bands"
