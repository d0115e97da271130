"""A simulator of the part of Stripe that Tallygate uses, for tests and for a first run without an account at Stripe."""
