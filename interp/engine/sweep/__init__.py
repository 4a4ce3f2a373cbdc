"""Exact sweeps, in the order of a run: variants, work units, clean pass, resumption from the first changed layer, readout."""
