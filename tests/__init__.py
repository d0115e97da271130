"""The promises, tested through the doors."""
