"""Amounts, prices, the ledger."""
