"""How callers and engines speak, and one said in the other."""
