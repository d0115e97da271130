"""Callers, keys, members."""
