"""The web pages: their build, the door that serves them, and what their sources may name."""
