"""What was used: records, cells, and the one measuring query."""
