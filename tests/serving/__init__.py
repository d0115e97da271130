"""Admission and settlement."""
