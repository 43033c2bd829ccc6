"""Verbs composed from verbs: the chain of stages."""
