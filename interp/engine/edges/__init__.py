"""Edges of the graph: exact patching, attribution, and the decomposition of the residual stream they rest on."""
