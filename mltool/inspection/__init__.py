"""What is in a model file."""
