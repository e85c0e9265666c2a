"""The command line: one file per noun, each thin; what they need of the control plane goes through client.py.

Modules here import at their head only what is quick, and the rest where it is used: `muster --help` must not wait for
a web framework.
"""
