"""Training the generator: pairs, losses, the step, its state; torch only."""
