"""How weights change: optimizers, learning rates, phases, averages."""
