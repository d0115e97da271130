"""The documented paths."""
