"""Edges of the graph: the residual decomposition, exact edge patching, edge attribution."""
