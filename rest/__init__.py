"""The documented REST paths: one module for each document, and health."""
