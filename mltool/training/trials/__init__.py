"""What is run instead of a training, or to look into one: trials, batch sizes, learning rates, profiles."""
