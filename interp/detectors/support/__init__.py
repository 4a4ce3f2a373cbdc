"""What several detectors share: prompts, nulls, thresholds, the form of a detection."""
