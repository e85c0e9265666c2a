"""A simulated ComfyUI for development: its protocol, its order of messages, real files; nothing is computed.

Wherever a person or a program could take it for the real one it says that it is not.
"""

VERSION = "0.3.64-simulated"
