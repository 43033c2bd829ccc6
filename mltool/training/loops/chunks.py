"""How many steps run inside one tf.function call: found from the time a step takes."""

TARGET_SECONDS = 0.3
"""Python handles signals and moves the bar only between calls; 0.2 to 0.5 s keeps both alive (measured)."""


class Chunks:
    """The length of the next chunk; the first one is short, because it also traces.

    Args:
        longest: steps of a chunk at most; None where time alone decides.
    """

    def __init__(self, longest: int | None = None) -> None:
        self._length = 1
        self._calls = 0
        self._longest = longest

    def next_length(self, left: int) -> int:
        """Steps of the next chunk, at most `left`."""
        longest = left if self._longest is None else min(left, self._longest)
        return max(1, min(self._length, longest))

    def took(self, steps: int, seconds: float) -> None:
        """Learns from a chunk; at most four times as long as before, lest one lucky chunk decides."""
        self._calls += 1
        if self._calls == 1:
            return
        wanted = int(TARGET_SECONDS / max(seconds / steps, 1e-6))
        self._length = max(1, min(wanted, 4 * max(self._length, 4)))
