"""Gradient estimates of what a sweep or a patch would measure."""
