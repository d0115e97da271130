"""Deployed apps as their visitors get them, each on an origin of its own."""
