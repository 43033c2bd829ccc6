"""SavedModel to `.tflite`: converter, quantisation schemes, calibration, read-back."""
