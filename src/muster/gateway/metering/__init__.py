"""Whose request it is, and what its answer comes to."""
