"""Real servers started from wheels for the first run and for tests: Postgres, Valkey, and the echo model."""
