"""Attention as the engine computes it: the function put into models, rows by blocks, metrics read from them, the query/key cache."""
