"""Tests of the ring `clients`."""
