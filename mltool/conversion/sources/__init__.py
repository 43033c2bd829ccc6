"""What is converted, brought to the form that an engine takes."""
