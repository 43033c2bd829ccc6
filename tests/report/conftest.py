"""Trained and converted runs."""

from artifacts import made, made_pair, run

__all__ = ["made", "made_pair", "run"]
