"""Each outside system behind one small class that fulfils a Protocol of the domain."""
