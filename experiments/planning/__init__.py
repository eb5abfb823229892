"""Whether a training job fits a slice of a TPU pod, and how long its steps take by estimate."""
