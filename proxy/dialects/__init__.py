"""What the relay must know of a wire format: request, usage, errors, stream."""
