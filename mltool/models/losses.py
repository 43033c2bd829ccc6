"""The loss of a spec, a value for every sample: Keras', or the user's."""

from collections.abc import Callable
from typing import Any

from mltool import extras
from mltool.models.keras_objects import build_keras
from mltool.models.user_call import call_user, calling, described, load_user, refusal
from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing

Loss = Callable[[Any, Any], Any]


def build_loss(loss: KerasObject, *, at: str = "train.loss") -> Loss:
    """A function of targets and outputs that gives a loss for every sample, not reduced.

    Args:
        loss: of the spec.
        at: dotted key of it, for messages.

    Raises:
        SpecError: if Keras refuses its arguments; if a class of the user's is none of Keras' losses, or fails.
    """
    if isinstance(loss, OwnThing):
        return OwnLoss(loss, at=f"{at}.python")
    arguments = {key: value for key, value in loss.arguments.items() if key != "reduction"}
    built: Loss = build_keras(KerasObject(loss.name, arguments), "losses", at=f"{at}.{loss.name}", reduction=None)
    return built


class OwnLoss:
    """A loss of the user's.

    Args:
        thing: of the spec.
        at: dotted key, for messages.
    """

    def __init__(self, thing: OwnThing, at: str) -> None:
        self._thing, self._at = thing, at
        found = load_user(thing.reference, key=at)
        if isinstance(found, type):
            if not issubclass(found, extras.keras().losses.Loss):
                hint = "name a keras.losses.Loss, or a function of (y_true, y_pred)"
                raise refusal(f"{thing.reference} is a class, and no loss of Keras", hint, key=at)
            built = call_user(thing.reference, thing.arguments, key=at)
            built.reduction = None  # the loop divides by the global batch size itself
            self._function: Loss = built
        else:
            self._function = lambda targets, outputs: found(targets, outputs, **thing.arguments)
        # Not converted by AutoGraph, as Keras' own losses are not.
        self._run = extras.tensorflow().autograph.experimental.do_not_convert(self._checked)

    def __call__(self, targets: Any, outputs: Any) -> Any:
        """The losses, [samples, ...].

        Raises:
            SpecError: if it raises, or gives anything but a number for every sample.
        """
        return self._run(targets, outputs)

    def require_gradient(self, targets: Any, outputs: Any) -> None:
        """Proves that there is something to learn from.

        Raises:
            SpecError: if no gradient comes from the losses to the outputs.
        """
        with extras.tensorflow().GradientTape() as tape:
            tape.watch(outputs)
            losses = self(targets, outputs)
        if tape.gradient(losses, outputs) is None:
            message = f"no gradient comes through {self._thing.reference}"
            raise refusal(message, "use operations that have one, of y_pred", key=self._at)

    def _checked(self, targets: Any, outputs: Any) -> Any:
        reference = self._thing.reference
        with calling(reference, reference, key=self._at):
            losses = self._function(targets, outputs)
        return per_sample(losses, outputs, reference, key=self._at)


def per_sample(values: Any, outputs: Any, reference: str, *, key: str) -> Any:
    """The values, if there is one for every sample at least.

    Raises:
        SpecError: if there is not.
    """
    if not extras.tensorflow().is_tensor(values):
        raise refusal(f"{reference} returned {described(values)}; a tensor is expected", "return a tensor", key=key)
    found, samples = values.shape, outputs.shape[0]
    if found.rank == 0 or (found.rank and None not in (found[0], samples) and found[0] != samples):
        message = f"{reference} returned shape {tuple(found)} for {samples or 'a batch of'} samples"
        raise refusal(message, "return a value for every sample: no mean over the batch", key=key)
    return values
