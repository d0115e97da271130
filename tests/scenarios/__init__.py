"""Stories that cross rings, with faults."""
