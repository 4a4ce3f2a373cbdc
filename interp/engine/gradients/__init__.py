"""Gradient estimates of the effects that a sweep or a patch measures exactly."""
