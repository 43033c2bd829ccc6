"""What makes a `.tflite` file of a model; each runs inside the child process."""
