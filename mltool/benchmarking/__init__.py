"""Latency and throughput of a predictor."""
