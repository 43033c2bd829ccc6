"""Learning rates that cannot be meant are found in the spec: schedules, factors by layer, what does not decay."""

import subprocess
import sys

import pytest

from mltool.spec.load import dump_spec, load_spec


def with_rate(rate, epochs=10):
    return {"train.epochs": epochs, "train.optimizer": {"SGD": {"learning_rate": rate}}}


WRONG = {
    "a warm-up as long as training": (
        {"Cosine": {"learning_rate": 0.1, "warmup_epochs": 10}},
        "Cosine.warmup_epochs: must be less than the 10 epochs of its phase (got 10): learning_rate would never be"
        " reached; write fewer",
    ),
    "a rise of one cycle that never ends": (
        {"OneCycle": {"learning_rate": 0.1, "warmup_epochs": 12.5}},
        "OneCycle.warmup_epochs: must be less than the 10 epochs of its phase (got 12.5)",
    ),
    "a beginning of no warm-up": (
        {"Constant": {"learning_rate": 0.1, "warmup_learning_rate": 0.01}},
        "Constant.warmup_learning_rate: is of a warm-up, and there is none; add warmup_epochs, or leave it out",
    ),
    "a warm-up that falls": (
        {"Constant": {"learning_rate": 0.1, "warmup_epochs": 1, "warmup_learning_rate": 0.2}},
        "warmup_learning_rate: must be at most learning_rate, 0.1 (got 0.2); learning_rate is the highest",
    ),
    "an end above the beginning": (
        {"Polynomial": {"learning_rate": 0.1, "final_learning_rate": 0.2}},
        "Polynomial.final_learning_rate: must be at most learning_rate, 0.1 (got 0.2)",
    ),
    "no steps": (
        {"Step": {"learning_rate": 0.1}},
        "Step: must have step_epochs or milestones (got neither); write step_epochs: 10, or milestones: [10, 15]",
    ),
    "two kinds of steps": (
        {"Step": {"learning_rate": 0.1, "step_epochs": 2, "milestones": [3]}},
        "Step: must have step_epochs or milestones (got both)",
    ),
    "a step that never comes": (
        {"Step": {"learning_rate": 0.1, "step_epochs": 10}},
        "Step.step_epochs: must be less than the 10 epochs of its phase (got 10): no step would come",
    ),
    "no milestones": ({"Step": {"learning_rate": 0.1, "milestones": []}}, "must be epochs that rise (got [])"),
    "milestones that fall": (
        {"Step": {"learning_rate": 0.1, "milestones": [5, 3]}},
        "Step.milestones: must be epochs that rise (got [5, 3]); write milestones: [10, 15]",
    ),
    "a milestone that never comes": (
        {"Step": {"learning_rate": 0.1, "milestones": [5, 10]}},
        "Step.milestones: must be less than the 10 epochs of its phase (got [5, 10]); 10 would never come",
    ),
    "a milestone within the warm-up": (
        {"Step": {"learning_rate": 0.1, "milestones": [2], "warmup_epochs": 3}},
        "Step.milestones: must come after the warm-up of 3 epochs (got [2])",
    ),
    "cycles of none": (
        {"Cosine": {"learning_rate": 0.1, "cycle_decay": 0.5}},
        "Cosine.cycle_decay: is of cycles, and there is only one; add cycle_epochs, or leave it out",
    ),
    "a cycle that never starts again": (
        {"Cosine": {"learning_rate": 0.1, "warmup_epochs": 2, "cycle_epochs": 8}},
        "Cosine.cycle_epochs: must be less than the 8 epochs that are there for cycles (got 8)",
    ),
    "a factor that raises": (
        {"Exponential": {"learning_rate": 0.1, "factor": 1.1}},
        "Exponential.factor: must be a number greater than 0 and less than 1 (got 1.1)",
    ),
    "an argument that is none": (
        {"Cosine": {"learning_rate": 0.1, "warmup_epoch": 1}},
        "Cosine.warmup_epoch: unknown argument; did you mean 'warmup_epochs'?",
    ),
    "a name that is none": ({"Cosin": {"learning_rate": 0.1}}, "unknown schedule 'Cosin'; did you mean 'Cosine'?"),
    "no rate": ({"OneCycle": {}}, "missing argument 'learning_rate'; write OneCycle: {learning_rate: ...}"),
    "Keras: no steps": (
        {"CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 0}},
        "CosineDecay.decay_steps: must be an integer greater than 0 (got 0)",
    ),
    "Keras: a warm-up to nowhere": (
        {"CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 10, "warmup_steps": 5}},
        "CosineDecay.warmup_steps: do nothing without warmup_target; add warmup_target, which the warm-up leads to",
    ),
    "Keras: boundaries that fall": (
        {"PiecewiseConstantDecay": {"boundaries": [20, 10], "values": [3, 2, 1]}},
        "boundaries: must be steps that rise (got [20, 10])",
    ),
    "Keras: too few values": (
        {"PiecewiseConstantDecay": {"boundaries": [10, 20], "values": [2, 1]}},
        "values: must be one more than the 2 boundaries (got 2)",
    ),
}


@pytest.mark.parametrize(("rate", "message"), WRONG.values(), ids=WRONG)
def test_a_schedule_that_cannot_be_meant_is_refused(rate, message, bench):
    (found,) = bench.refused(with_rate(rate))
    assert found.startswith("train.optimizer.SGD.learning_rate.")
    assert message in found


def test_a_phase_is_what_a_schedule_is_held_against(bench):
    rate = {"SGD": {"learning_rate": {"Constant": {"learning_rate": 0.1, "warmup_epochs": 2}}}}
    phases = [{"epochs": 3, "optimizer": rate}, {"epochs": 1, "optimizer": rate}]
    (found,) = bench.refused({"train.phases": phases})
    assert found.startswith(
        "train.phases.1.optimizer.SGD.learning_rate.Constant.warmup_epochs: must be less than the 1 epoch of its phase"
    )


def test_a_mean_of_weights_cannot_begin_after_the_end(bench):
    assert bench.refused({"train.epochs": 1, "train.keep": "average", "train.average_from": 2}) == [
        "train.average_from: training ends after 1 epoch (got 2); take an earlier one"
    ]


def test_what_follows_from_a_mistake_in_the_epochs_is_not_told(bench):
    long = {"Constant": {"learning_rate": 0.1, "warmup_epochs": 50}}
    assert bench.refused(with_rate(long, epochs=0)) == ["train.epochs: must be greater than 0 (got 0)"]


ADAMW = {"AdamW": {"weight_decay": 0.01}}
PATTERNS = {
    "a factor of nothing": (
        {"train.learning_rates": {"tpo": 0.1}},
        "train.learning_rates.tpo: no layer matches 'tpo'; did you mean 'top'?",
    ),
    "a factor that freezes": ({"train.learning_rates": {"top": 0}}, "train.learning_rates.top: must be greater than 0"),
    "no expression": (
        {"train.learning_rates": {"a(": 0.1}},
        "train.learning_rates.a(: is no regular expression: missing ), unterminated subpattern",
    ),
    "an expression of what does not decay": (
        {"train.no_weight_decay": ["a("], "train.optimizer": ADAMW},
        "train.no_weight_decay.0: is no regular expression",
    ),
    "a bare name of a weight": (
        {"train.no_weight_decay": ["bias"], "train.optimizer": ADAMW},
        "train.no_weight_decay.0: no layer matches 'bias'; write '.*/bias'",
    ),
    "nothing that decays": (
        {"train.no_weight_decay": [".*/bias"]},
        "train.no_weight_decay: Adam decays no weights; write Adam: {weight_decay: 0.01}, or leave this out",
    ),
    "factors beside phases": (
        {"train.phases": [{"epochs": 1}], "train.learning_rates": {"top": 2}},
        "train.learning_rates: stands beside phases, which have their own; take it out, or write learning_rates: in",
    ),
    "a factor of a phase": (
        {"train.phases": [{"epochs": 1, "learning_rates": {"top/kernl(": 2}}]},
        "train.phases.0.learning_rates.top/kernl(: is no regular expression",
    ),
    "a phase that does not decay": (
        {"train.phases": [{"epochs": 1, "optimizer": "sgd", "no_weight_decay": ["top"]}]},
        "train.phases.0.no_weight_decay: SGD decays no weights",
    ),
}


@pytest.mark.parametrize(("changes", "message"), PATTERNS.values(), ids=PATTERNS)
def test_patterns_that_cannot_be_meant_are_refused(changes, message, bench):
    (found,) = bench.refused(changes)
    assert message in found


CLIPPED_TWICE = {
    "two ways": (["clipnorm", "clipvalue"], ["clipvalue"]),
    "norms of one and of all": (["clipnorm", "global_clipnorm"], ["global_clipnorm"]),
    "three ways": (["global_clipnorm", "clipvalue", "clipnorm"], ["clipvalue", "clipnorm"]),
}


@pytest.mark.parametrize("key", ["train.optimizer", "train.phases.0.optimizer"], ids=["of training", "of a phase"])
@pytest.mark.parametrize(("given", "wrong"), CLIPPED_TWICE.values(), ids=CLIPPED_TWICE)
def test_gradients_are_clipped_in_one_way(given, wrong, key, bench):
    optimizer = {"Adam": dict.fromkeys(given, 1.0)}
    of_phase = {"train.phases": [{"epochs": 1, "optimizer": optimizer}]}
    assert bench.refused(of_phase if "phases" in key else {key: optimizer}) == [
        f"{key}.Adam.{name}: stands beside {given[0]}, and gradients are clipped in one way; keep one of them"
        for name in wrong
    ]


def test_a_second_way_to_clip_is_told_where_it_stands(bench):
    text = """
        name: small
        data: {source: {dataset: digits}}
        model: {layers: [Flatten, {Dense: {units: 10}}]}
        train:
          loss: {SparseCategoricalCrossentropy: {from_logits: true}}
          optimizer: {Adam: {clipnorm: 1.0, clipvalue: 2.0}}
    """
    (found,) = bench.refusals(bench.write(text))
    assert (found.line, found.column) == (7, 37)


def test_a_way_to_clip_that_is_null_is_none(bench):
    arguments = {"clipnorm": None, "clipvalue": 2.0}
    assert bench.load({"train.optimizer": {"Adam": arguments}}).train.optimizer.arguments["clipvalue"] == 2.0


def test_what_follows_from_a_mistake_in_the_optimizer_is_not_told(bench):
    (found,) = bench.refused({"train.optimizer": "admw", "train.no_weight_decay": ["top"]})
    assert "unknown optimizer 'admw'" in found


def test_all_of_it_reads_back_from_the_resolved_spec(bench):
    changes = {
        "train.optimizer": {
            "AdamW": {"learning_rate": {"Step": {"learning_rate": 0.1, "milestones": [2, 4.5], "warmup_epochs": 0.5}}}
        },
        "train.learning_rates": {"top/.*": 0.5},
        "train.no_weight_decay": [".*/bias"],
    }
    loaded = bench.load(changes)
    assert dict(loaded.train.learning_rates) == {"top/.*": 0.5}
    ((_, phase),) = loaded.train.placed_phases
    assert (phase.learning_rates, phase.no_weight_decay) == ({"top/.*": 0.5}, (".*/bias",))
    assert load_spec(bench.write(dump_spec(loaded), "again.yaml")) == loaded


def test_the_check_imports_nothing_heavy(bench):
    path = bench.good(with_rate({"Cosine": {"learning_rate": 0.1, "warmup_epochs": 1}}))
    script = (
        "import sys; from pathlib import Path; from mltool.spec.load import load_spec; load_spec(Path(sys.argv[1]));"
        "print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_loss_without_label_smoothing_names_one_that_has_it(bench):
    loss = {"SparseCategoricalCrossentropy": {"from_logits": True, "label_smoothing": 0.1}}
    assert bench.refused({"train.loss": loss}) == [
        "train.loss.SparseCategoricalCrossentropy.label_smoothing: unknown argument; write CategoricalCrossentropy:"
        " {label_smoothing: 0.1}, which takes the same labels here, or BinaryCrossentropy"
    ]
