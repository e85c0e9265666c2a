"""Environment of the library below, before it is loaded: it tells by exceptions all that it would print besides."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # our children execute other programs at once
