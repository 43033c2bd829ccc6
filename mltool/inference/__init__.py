"""Predictor: one protocol, one file per runtime."""
