"""Spec to keras.Model."""
