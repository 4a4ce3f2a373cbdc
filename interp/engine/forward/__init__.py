"""Single forward passes: hooked runs, captured activations, generation."""
