"""Training: a pure step, and a loop that keeps it safe."""
