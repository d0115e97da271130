"""Deployed apps, as visitors have them."""
