"""Recordings made without a host: what a model does, written down as a kernel's events."""
