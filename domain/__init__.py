"""The rules: they know the tables, and name what they need of the outside as Protocols."""
