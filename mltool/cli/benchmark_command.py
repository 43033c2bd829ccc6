"""`mltool benchmark`."""

from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import ArtifactArgument, examples, verb

SETTINGS = examples(
    "mltool benchmark runs/digits/20261123-101500-k3v9/lite/int8.tflite",
    "mltool benchmark model.tflite --threads 2 --runs 1000 --json",
)


@verb
def command(
    artifact: ArtifactArgument = None,
    batch: Annotated[int, typer.Option("--batch", help="Samples of one call, where the file leaves it free.")] = 1,
    threads: Annotated[
        int, typer.Option("--threads", help="Threads of LiteRT and ONNX Runtime; TensorFlow decides itself.")
    ] = 1,
    warmup: Annotated[int, typer.Option("--warmup", help="Calls before the first that counts.")] = 20,
    runs: Annotated[int, typer.Option("--runs", help="Calls that count.")] = 200,
) -> None:
    """Measure latency and throughput of a run or an artifact.

    The figures are of this host; a phone or a microcontroller ranks the schemes differently.
    """
    from mltool.runs.find import find_artifact

    _, path = find_artifact(artifact)
    from mltool.benchmarking.benchmark import benchmark

    result = benchmark(path, batch=batch, threads=threads, warmup=warmup, runs=runs)
    latency = "  ".join(f"{name} {value:.4f} ms" for name, value in result.latency_ms.items())
    text = (
        f"{path}\n{result.runtime}, {result.threads or 'own'} threads, batch {result.batch}, on {result.host}\n"
        f"{latency}  {result.throughput_per_second:,.0f} samples/s"
    )
    console.result(result.to_json(), text)
