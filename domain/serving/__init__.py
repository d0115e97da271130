"""One inference call: admitted, kept alive, settled."""
