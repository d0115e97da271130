"""Apps: registered, deployed, hosted."""
