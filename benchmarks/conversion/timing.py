"""What proving costs: mltool's conversion, read-back and agreement against the bare TFLiteConverter.

    python benchmarks/conversion/timing.py RUNS --output timing.json                       all models, int8 and dynamic
    python benchmarks/conversion/timing.py RUNS --output timing.json --models gru --schemes none --rounds 15

Both convert the same SavedModel in processes that are warm: imports, data and samples are there before the clock runs.
In a round each converts once while the other waits, in an order that turns from round to round. mltool's clock holds
the converter in its child process, reading the file back, running it on 256 test samples and comparing its answers with
the Keras model's; the bare one's holds `TFLiteConverter.from_saved_model(...).convert()` alone. The figure is the
median of the ratios of a round, and how far they go. "First" is the same where the SavedModel was not converted before,
as for the first scheme of a command: it is read, and written with a fixed batch then. Apart: the start of the child
processes, the latency of a single sample, and the metric over the whole test split, which the command does too.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bare
from models import MODELS
from table import call_bare

sys.path.insert(0, str(Path(__file__).parent.parent))

from turns import Player, own_stdout

SCHEMES = ("dynamic", "int8")
SAMPLES = 256
"""Test samples that the agreement is measured on."""

Row = dict[str, Any]


class Clocked(Player):
    """A process that converts when it is told to, and says how long each part took."""

    def ask(self, what: str) -> dict[str, float]:
        """Lets it do something once: `convert`, `anew` or `apart`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return {str(name): float(seconds) for name, seconds in self._read().items()}


class Ours:
    """mltool's steps, as `mltool convert` takes them, with all that is warm there.

    Args:
        run: its directory.
        scheme: as `--quantize` takes it.
        scratch: for files.
    """

    def __init__(self, run: str, scheme: str, scratch: Path) -> None:
        from mltool import extras
        from mltool.child import Child
        from mltool.conversion.entries import entries_for
        from mltool.conversion.origin import RunOrigin
        from mltool.conversion.workbench import Workbench
        from mltool.evaluation.reference import reference_of
        from mltool.runs.find import find_run

        found = find_run(run)
        self.converter, self.interpreter = Child(), Child()
        self.origin = RunOrigin(found, scratch)
        self.bench = Workbench(self.origin, self.converter, self.interpreter, scratch)
        (self.entry,) = entries_for(found.spec, scheme)
        self.file = scratch / "ours.tflite"
        if self.entry.calibrated:  # drawn once, as the bare converter's are
            calibration = self.origin.calibration(self.entry)
            self.origin.calibration = lambda entry: calibration  # type: ignore[method-assign]
        extras.keras()
        started = time.perf_counter()
        self.reference = reference_of(found, self.origin.data)
        self.metric = time.perf_counter() - started
        self.first = self.reference.samples.first(SAMPLES)
        started = time.perf_counter()
        self.convert()  # starts both processes, with TensorFlow in the first
        self.start = time.perf_counter() - started

    def convert(self) -> dict[str, float]:
        """Once; seconds by part."""
        from mltool.evaluation.agreement import compare_answers
        from mltool.evaluation.evaluate import output_of
        from mltool.inference.outside import open_lite

        schema, marks = self.origin.schema, [time.perf_counter()]
        made = self.bench.make(self.entry, self.file)
        marks.append(time.perf_counter())
        self.bench.read_back(made)
        marks.append(time.perf_counter())
        with open_lite(self.file, child=self.interpreter, steps=self.origin.core.steps) as predictor:
            outputs = output_of(predictor, self.first, schema, self.file)
        compare_answers(self.reference.outputs[: len(outputs)], outputs, schema)
        marks.append(time.perf_counter())
        names = ("convert", "read_back", "agreement")
        parts = {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}
        return {**parts, "seconds": marks[-1] - marks[0]}

    def anew(self) -> dict[str, float]:
        """As `convert`, with a SavedModel that the child takes for another than the one it converted last."""
        folder = self.origin.core.saved_model
        assert folder is not None
        os.utime(folder / "saved_model.pb")
        return self.convert()

    def apart(self) -> dict[str, float]:
        """Seconds of what the command does beside."""
        from mltool.evaluation.reference import measure_file

        steps = self.origin.core.steps
        latency = _seconds_of(lambda: self.bench.latency(self.file, self.reference))
        whole = _seconds_of(
            lambda: measure_file(
                self.file, self.reference, child=self.interpreter, metric=None, latency=None, steps=steps
            )
        )
        return {"start": self.start, "latency": latency, "metric_of_keras": self.metric, "metric_of_file": whole}


class Theirs:
    """The bare converter.

    Args:
        folder: that `bare.py prepare` wrote.
        scheme: one of its.
    """

    def __init__(self, folder: str, scheme: str) -> None:
        import tensorflow as tf

        self.tf, self.folder, self.scheme = tf, str(Path(folder) / "saved_model"), scheme
        self.samples = bare.load_samples(tf, folder)
        self.recurrent = False
        try:
            self.convert()
        except Exception:  # a recurrent layer; what is none fails again
            self.recurrent = True
            self.convert()

    def convert(self) -> dict[str, float]:
        """Once."""
        started = time.perf_counter()
        bare.bare_converter(self.tf, self.folder, self.scheme, self.samples, recurrent=self.recurrent).convert()
        return {"seconds": time.perf_counter() - started}


def _seconds_of(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def play(who: str, source: str, scheme: str) -> None:
    """What a process runs: converts for every line on stdin."""
    answers = own_stdout()

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    with tempfile.TemporaryDirectory() as scratch:
        player: Ours | Theirs = Ours(source, scheme, Path(scratch)) if who == "mltool" else Theirs(source, scheme)
        say({"ready": who})
        for line in sys.stdin:
            say(getattr(player, line.strip())())
        if isinstance(player, Ours):
            player.converter.close()
            player.interpreter.close()


def measure(run: Path, scheme: str, rounds: int) -> Row:
    """Both on one model, in turns."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        prepared, problem = call_bare("prepare", str(run), scratch)
        if not prepared:
            return {"error": problem}
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        players = []
        for who, source in (("mltool", str(run)), ("bare", scratch)):
            words = [sys.executable, __file__, "--play", who, source, scheme]
            players.append(Clocked(who, words, environment))
            stack.callback(players[-1].stop)
            players[-1].versions()  # waits until it is warm
        turns: dict[str, list[dict[str, float]]] = {player.name: [] for player in players}
        firsts = []
        for number in range(rounds):
            for player in players if number % 2 else players[::-1]:
                turns[player.name].append(player.ask("convert"))
            firsts.append(players[0].ask("anew")["seconds"])
        apart = players[0].ask("apart")
    first_ratios = [ours / theirs["seconds"] for ours, theirs in zip(firsts, turns["bare"], strict=True)]
    ratios = [ours["seconds"] / theirs["seconds"] for ours, theirs in zip(turns["mltool"], turns["bare"], strict=True)]
    return {
        "samples": prepared[0]["samples"],
        "mltool": {part: statistics.median(turn[part] for turn in turns["mltool"]) for part in turns["mltool"][0]},
        "bare": {"seconds": statistics.median(turn["seconds"] for turn in turns["bare"])},
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "first": statistics.median(first_ratios),
        "rounds": rounds,
        "apart": apart,
    }


def markdown(rows: dict[str, Row]) -> str:
    """A line a model and scheme."""
    head = ["model", "scheme", "mltool s", "convert", "read-back", "256 samples", "bare s", "ratio (least to most)"]
    head += ["first", "start s", "latency s", "Keras' metric s", "file's metric s"]
    lines = [head, ["---"] * len(head)]
    for key, row in rows.items():
        name, scheme = key.split("/")
        if "error" in row:
            lines.append([MODELS[name].title, scheme, row["error"], *[""] * (len(head) - 3)])
            continue
        ours, apart = row["mltool"], row["apart"]
        parts = [f"{ours[part]:.2f}" for part in ("seconds", "convert", "read_back", "agreement")]
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        rest = [f"{apart[part]:.1f}" for part in ("start", "latency", "metric_of_keras", "metric_of_file")]
        bare_seconds, first = f"{row['bare']['seconds']:.2f}", f"{row['first']:.2f}"
        lines.append([MODELS[name].title, scheme, *parts, bare_seconds, ratio, first, *rest])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Measures what is not in the file yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder with the runs of models.py")
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file of the figures; the same name with .md too"
    )
    parser.add_argument("--schemes", type=lambda text: text.split(","), default=list(SCHEMES))
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--again", action="store_true", help="what is there already, too")
    arguments = parser.parse_args()
    output: Path = arguments.output
    rows: dict[str, Row] = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    for name in arguments.models:
        for scheme in arguments.schemes:
            if f"{name}/{scheme}" in rows and not arguments.again:
                continue
            try:
                rows[f"{name}/{scheme}"] = measure(arguments.runs / name, scheme, arguments.rounds)
            except SystemExit as error:  # a process that ended, with the last that it said
                rows[f"{name}/{scheme}"] = {"error": str(error).strip().splitlines()[-1]}
            output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = markdown(rows)
    output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play"]:
        play(*sys.argv[2:])
    else:
        main()
