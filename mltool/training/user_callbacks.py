"""Callbacks of Keras and of the user's, called where Keras' `fit` calls them."""

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mltool import extras
from mltool.data.sources.user_function import running
from mltool.errors import TrainingError
from mltool.models.keras_objects import build_keras
from mltool.models.user_call import call_user, described, in_short, refusal, where
from mltool.spec.callbacks import OUR_CALLBACKS
from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing

logger = logging.getLogger("mltool")

Kind = Literal["train", "test"]
"""Of steps: training or validation, as Keras' methods are called."""

_OF_BATCHES: Final[dict[Kind, tuple[str, ...]]] = {
    "train": ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    "test": ("on_test_batch_begin", "on_test_batch_end"),
}

_STOP: Final = "stop"
"""Key of the wish to stop, among the states of callbacks."""


@dataclass(frozen=True)
class UserCallback:
    """One callback.

    Attributes:
        key: of its state in a checkpoint.
        reference: to the class of the user's, or Keras' name.
        callback: the keras.callbacks.Callback.
        at: dotted key of the spec, for messages.
    """

    key: str
    reference: str
    callback: Any
    at: str

    @property
    def writes_lines(self) -> bool:
        """Whether it writes a line an epoch into `file`."""
        return self.reference == "CSVLogger"

    @property
    def file(self) -> Path:
        """What it writes, if it does."""
        return Path(self.callback.filename)

    @property
    def has_state(self) -> bool:
        """Whether it can be resumed exactly."""
        return all(callable(getattr(self.callback, name, None)) for name in ("get_state", "set_state"))

    def watches(self, kind: Kind) -> bool:
        """Whether it does something around every step."""
        return not all(_is_default(getattr(self.callback, name)) for name in _OF_BATCHES[kind])


def _length_of(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _cut(file: Path, state: Mapping[str, int] | None) -> None:
    """Cuts a file to its length at a checkpoint; one that is shorter, or of which nothing is known, stays."""
    if state is not None and _length_of(file) > state["bytes"]:
        os.truncate(file, state["bytes"])


def _is_default(method: Any) -> bool:
    """Whether Keras marks a method as one that does nothing, as its own loop asks."""
    return getattr(method, "_is_default", False)


def build_user_callbacks(things: Iterable[KerasObject], folder: Path, *, writes: bool) -> tuple[UserCallback, ...]:
    """The callbacks of a spec but for EarlyStopping and ReduceLROnPlateau, which are mltool's.

    Args:
        things: all callbacks of the spec.
        folder: that file names of Keras' own are relative to; every run has one.
        writes: whether this process writes; Keras' own are left out where it does not.

    Raises:
        SpecError: if code of the user's raises, or gives no callback; if Keras refuses arguments.
    """
    built = []
    for index, thing in enumerate(things):
        at = f"train.callbacks.{index}"
        if isinstance(thing, OwnThing):
            built.append(UserCallback(f"{index}:{thing.own_name}", thing.reference, _own(thing, f"{at}.python"), at))
        elif thing.name not in OUR_CALLBACKS and writes:
            callback = build_keras(thing, "callbacks", at=f"{at}.{thing.name}")
            if thing.name == "CSVLogger":
                callback.filename = str(folder / callback.filename)
            built.append(UserCallback(f"{index}:{thing.name}", thing.name, callback, at))
    return tuple(built)


def _own(thing: OwnThing, at: str) -> Any:
    built = call_user(thing.reference, thing.arguments, key=at)
    if not isinstance(built, extras.keras().callbacks.Callback):
        message = f"{thing.reference} gives {described(built)}, which is no callback"
        raise refusal(message, "derive it from keras.callbacks.Callback", key=at)
    return built


def _no_state(one: UserCallback, what: str) -> TrainingError:
    hint = "return numbers, text, lists, and maps whose keys are text"
    return TrainingError(f"get_state of {one.reference} gives {what}", hint)


def has_user_callbacks(things: Iterable[KerasObject]) -> bool:
    """Whether any process of the training has callbacks that are not mltool's."""
    return any(isinstance(thing, OwnThing) or thing.name not in OUR_CALLBACKS for thing in things)


class UserCallbacks:
    """Runs them through Keras' CallbackList, for the whole training: phases do not begin them anew.

    A callback finds the model, with its optimizer, in `self.model`, and epochs and steps in `self.params`. What it
    changes of weights and optimizer stays; `self.model.stop_training = True` ends the training, or the phase.

    Args:
        callbacks: of `build_user_callbacks`.
        model: that is trained.
        epochs: of all phases, at most.
        steps: of an epoch.
    """

    def __init__(self, callbacks: tuple[UserCallback, ...], model: Any, *, epochs: int, steps: int) -> None:
        self._callbacks, self._model = callbacks, model
        self._params = {"epochs": epochs, "steps": steps, "verbose": 0}
        self._watching: dict[Kind, list[str]] = {
            kind: [one.reference for one in callbacks if one.watches(kind)] for kind in _OF_BATCHES
        }
        self._list: Any = None

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def longest(self, kind: Kind) -> int | None:
        """Steps that may run at once; None where no callback minds."""
        return 1 if self._watching[kind] else None

    def begin(self, optimizer: Any, states: Mapping[str, Any] | None) -> None:
        """Begins the training, or goes on with it.

        Args:
            optimizer: of the phase.
            states: of a checkpoint; None at the beginning.

        Raises:
            TrainingError: if a callback raises, or its state is none that a checkpoint can hold.
        """
        if not self._callbacks:
            return
        self.take(optimizer)
        self._model.stop_training = False
        self._say_what_is_slow()
        self._prepare_files(states)
        own = [one.callback for one in self._callbacks]
        with self._calling():
            self._list = extras.keras().callbacks.CallbackList(own, model=self._model, **self._params)
        self.call("on_train_begin")
        if states is not None:
            self._restore(states, "begins anew")
        self.states()

    def go_back(self, states: Mapping[str, Any]) -> None:
        """Goes on from the states of a checkpoint within the training.

        Raises:
            TrainingError: if a callback raises.
        """
        if not self._callbacks:
            return
        self._prepare_files(states)
        for one in self._callbacks:
            if one.writes_lines:
                with self._calling():
                    one.callback.on_train_begin()  # opens the file again, and finds out whether it needs a header
        self._restore(states, "does not go back")

    def take(self, optimizer: Any) -> None:
        """Shows another optimizer to the callbacks, where they look for it."""
        if self._callbacks:
            self._model.optimizer = optimizer

    def call(self, method: str, *arguments: Any) -> None:
        """Calls a method of all.

        Raises:
            TrainingError: if one raises, with the line.
        """
        if self._callbacks:
            with self._calling():
                getattr(self._list, method)(*arguments)

    def around(
        self, kind: Kind, run_steps: Callable[..., Any], *, first: int, results: Callable[[], Mapping[str, float]]
    ) -> Callable[..., Any]:
        """A function like `run_steps`, with what callbacks do around a step.

        Args:
            kind: of the steps.
            run_steps: of (iterator, steps), gives how many ran.
            first: number of the step that comes next.
            results: so far.
        """
        if not self._watching[kind]:
            return run_steps
        places = itertools.count(first)

        def run_watched(batches: Iterator[Any], count: Any) -> int:
            place = next(places)
            self.call(f"on_{kind}_batch_begin", place)
            done = int(run_steps(batches, count))
            if done:
                self.call(f"on_{kind}_batch_end", place, dict(results()))
            return done

        return run_watched

    @property
    def stop(self) -> bool:
        """Whether a callback asked to stop."""
        return bool(self._callbacks) and bool(self._model.stop_training)

    def go_on(self) -> None:
        """Forgets the wish to stop, which was granted."""
        if self._callbacks:
            self._model.stop_training = False

    def end(self) -> None:
        """Ends the training; the model has the weights that are kept."""
        self.call("on_train_end")
        if self._callbacks:
            del self._model.optimizer  # it was lent: the file of the model holds none

    def states(self) -> dict[str, Any]:
        """What a checkpoint holds of them.

        Raises:
            TrainingError: if a state is none that a checkpoint can hold.
        """
        if not self._callbacks:
            return {}
        states = {one.key: self._state_of(one) for one in self._callbacks if one.has_state}
        files = {one.key: {"bytes": _length_of(one.file)} for one in self._callbacks if one.writes_lines}
        return {_STOP: {"asked": self.stop}, **states, **files}

    def _state_of(self, one: UserCallback) -> Any:
        with self._calling():
            state = one.callback.get_state()
        try:
            text = json.dumps(state)
        except (TypeError, ValueError) as error:
            raise _no_state(one, f"what a checkpoint cannot hold: {error}") from error
        if json.loads(text) != state and "NaN" not in text:
            raise _no_state(one, "what a checkpoint gives back otherwise")
        return state

    def _restore(self, states: Mapping[str, Any], otherwise: str) -> None:
        for one in self._callbacks:
            if one.has_state:
                with self._calling():
                    one.callback.set_state(states[one.key])
            elif not one.writes_lines:
                message = "inexact: the callback %s keeps no state (get_state, set_state); it %s"
                logger.warning(message, one.reference, otherwise)
        self._model.stop_training = states[_STOP]["asked"]

    def _say_what_is_slow(self) -> None:
        for kind, which in (("train", "training"), ("test", "validation")):
            if names := self._watching[kind]:  # type: ignore[index]
                message = "%s asks for every batch of %s: one step runs at a time, which is slower"
                logger.warning(message, " and ".join(names), which)

    def _prepare_files(self, states: Mapping[str, Any] | None) -> None:
        """Lets files of epochs begin, or end where the checkpoint was written: what came after runs again."""
        for one in self._callbacks:
            if not one.writes_lines:
                continue
            one.file.parent.mkdir(parents=True, exist_ok=True)
            if states is not None:
                one.callback.append = True
                _cut(one.file, states.get(one.key))

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Surrounds what runs code of the user's: see `models/user_call.py`, but now training has begun."""
        with contextlib.ExitStack() as stack:
            for one in self._callbacks:
                stack.enter_context(running(one.reference))
            try:
                yield
            except (Exception, SystemExit) as error:
                places = [(one.reference, where(error, one.reference)) for one in self._callbacks]
                reference, hint = next((place for place in places if place[1]), ("a callback", ""))
                raise TrainingError(f"{reference} raised {in_short(error)}", hint) from error
