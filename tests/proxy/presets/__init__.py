"""Presets: their files, how one is chosen, and how it enters a request."""
