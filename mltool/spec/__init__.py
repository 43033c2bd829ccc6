"""The YAML, typed; Keras' catalogue."""
