"""The tables and their enums. No rules."""
