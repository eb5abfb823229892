"""Kernel for Hopper GPUs (H100, H200), through Pallas Mosaic GPU."""
