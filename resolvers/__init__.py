"""How a GraphQL field is answered: read the arguments and the caller, make one domain call."""
