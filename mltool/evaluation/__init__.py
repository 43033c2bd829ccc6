"""Metrics of a predictor, agreement of two, limits, verification."""
