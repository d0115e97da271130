"""Wire formats: what is read, what is rewritten, what is refused."""
