"""One migration for each change of the tables, never edited after it landed."""
