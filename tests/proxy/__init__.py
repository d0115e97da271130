"""The inference road."""
