"""One forward pass: run, captured and generated; the only place with hooks beside the sweep."""
