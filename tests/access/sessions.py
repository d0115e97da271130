"""Issuers of sessions for tests."""

from clients.issuers import Issuers

NOBODY = Issuers([], local_secret=None)
"""Believes no session: for tests whose callers are keys."""
