"""Muster turns a handful, or a few thousand, GPU machines into one fleet."""

from importlib.metadata import version

__version__ = version("muster")
