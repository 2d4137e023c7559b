"""Executors that are not ours, asked for the same integers."""
