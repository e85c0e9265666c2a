"""`muster top`: the fleet in a terminal.

What is shown is decided in picture, rows, screen and frame; only live and terminal act.
"""
