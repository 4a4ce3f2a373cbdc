"""Exact sweeps: work units, the clean pass, resumption from the first changed layer, readout."""
