"""Attention as the engine computes it: the function installed in models, rows by blocks, observers, the q/k cache."""
