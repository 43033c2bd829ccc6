"""Learning-rate schedules of ours beside Keras' own: they count in epochs of their phase, where Keras' count in steps.

The form is that of `catalogue.json`; `training/optimizing/schedules.py` builds them, and a test holds the two tables
equal.
"""

from typing import Any, Final

_WARMUP: Final[dict[str, Any]] = {"warmup_epochs": ["number>=0", 0], "warmup_learning_rate": ["number>=0", 0.0]}
_WARMUP_DOCS: Final = {
    "learning_rate": "The highest: after the warm-up, or at the beginning without one.",
    "warmup_epochs": "Epochs in which the learning rate rises in a straight line, from warmup_learning_rate; fractions"
    " are fine.",
    "warmup_learning_rate": "Of the first step of the warm-up.",
}
_FINAL: Final[dict[str, Any]] = {"final_learning_rate": ["number>=0", 0.0]}
_FINAL_DOCS: Final = {"final_learning_rate": "What it comes down to."}

SCHEDULES: Final[dict[str, dict[str, Any]]] = {
    "Constant": {"arguments": {"learning_rate": ["number>0"], **_WARMUP}},
    "Cosine": {
        "arguments": {
            "learning_rate": ["number>0"],
            **_WARMUP,
            **_FINAL,
            "cycle_epochs": ["number>0|null", None],
            "cycle_factor": ["number>=1", 1.0],
            "cycle_decay": ["number>0<=1", 1.0],
        }
    },
    "Exponential": {
        "arguments": {
            "learning_rate": ["number>0"],
            **_WARMUP,
            "factor": ["number>0<1", 0.9],
            "decay_epochs": ["number>0", 1],
        }
    },
    "OneCycle": {
        "arguments": {
            "learning_rate": ["number>0"],
            "warmup_epochs": ["number>0|null", None],
            "div_factor": ["number>=1", 25.0],
            "final_div_factor": ["number>=1", 1e4],
        }
    },
    "Polynomial": {
        "arguments": {"learning_rate": ["number>0"], **_WARMUP, **_FINAL, "power": ["number>0", 1.0]},
    },
    "Step": {
        "arguments": {
            "learning_rate": ["number>0"],
            **_WARMUP,
            "factor": ["number>0<1", 0.1],
            "step_epochs": ["number>0|null", None],
            "milestones": ["list[number>0]|null", None],
        }
    },
}
"""By name: arguments with their types and defaults, in the language of `argument_types`."""

SCHEDULE_DOCS: Final[dict[str, dict[str, str]]] = {
    "Constant": {"": "One learning rate, after a warm-up.", **_WARMUP_DOCS},
    "Cosine": {
        "": "Down along half a cosine until the end of the phase; with cycle_epochs up again and again (SGDR).",
        **_WARMUP_DOCS,
        **_FINAL_DOCS,
        "cycle_epochs": "Length of the first cycle, in epochs after the warm-up; one cycle to the end when left out.",
        "cycle_factor": "How many times longer every cycle is than the one before.",
        "cycle_decay": "What the way up from final_learning_rate is multiplied by from cycle to cycle.",
    },
    "Exponential": {
        "": "Multiplied by factor every decay_epochs, smoothly.",
        **_WARMUP_DOCS,
        "factor": "By which it is multiplied.",
        "decay_epochs": "In how many epochs.",
    },
    "OneCycle": {
        "": "Up along half a cosine, then down along another to almost nothing, once in the phase. Momentum is left as"
        " it is.",
        "learning_rate": "The highest.",
        "warmup_epochs": "When it is reached; after 0.3 of the phase when left out.",
        "div_factor": "It begins at learning_rate / div_factor.",
        "final_div_factor": "It ends at learning_rate / div_factor / final_div_factor.",
    },
    "Polynomial": {
        "": "Down along (1 - progress) ** power until the end of the phase; a straight line when power is 1.",
        **_WARMUP_DOCS,
        **_FINAL_DOCS,
        "power": "Above 1 it falls fast at first.",
    },
    "Step": {
        "": "Multiplied by factor at epochs that are given, or every so many epochs.",
        **_WARMUP_DOCS,
        "factor": "By which it is multiplied.",
        "step_epochs": "Every how many epochs, from the beginning of the phase.",
        "milestones": "After how many epochs each, from the beginning of the phase: [10, 15].",
    },
}
"""By name and argument ("" is the schedule itself): the description in the JSON Schema."""
