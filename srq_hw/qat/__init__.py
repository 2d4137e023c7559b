"""Quantization-aware training: learned quantizers, the trainer, and what it leaves for a build."""
