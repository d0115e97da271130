"""The contract this product keeps: SDL, operations, examples."""
