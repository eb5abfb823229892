"""Hugging Face folders in and out: configuration, weights and PEFT adapters."""
