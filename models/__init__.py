"""The tables and their enums, without any rule."""
