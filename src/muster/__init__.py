"""Muster turns a handful, or a few thousand, GPU machines into one fleet."""

__version__ = "0.1.0"
