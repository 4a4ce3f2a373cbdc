"""Shared by several detectors: prompts, null models, calibrated thresholds and the form of a detection."""
