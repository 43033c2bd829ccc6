"""What runs steps: TensorFlow's compiled loop, those of other backends, steps of the user's; losses and metrics."""
