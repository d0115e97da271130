"""What a client's connection may do before a door hears of it."""
