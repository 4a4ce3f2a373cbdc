"""Attention as the engine computes it: the attention function installed in models, attention rows by blocks, observers, the q/k
cache."""
