"""Web pages: their source, their build, and the door that serves them."""
