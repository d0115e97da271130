"""The ledger and prices."""
