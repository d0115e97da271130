"""Tests of the translation between the dialects."""
