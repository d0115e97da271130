"""What clients may ask over GraphQL: types and fields, each naming the resolver that answers it."""
