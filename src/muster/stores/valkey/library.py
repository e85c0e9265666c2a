"""The Lua files as one library of functions, under a name that changes with every word of it."""

from functools import cache
from hashlib import sha256
from importlib.resources import files

from msgspec import Struct

_PARTS = (
    "base",
    "range",
    "states",
    "sessions",
    "customers",
    "line",
    "workflows",
    "waits",
    "attempts",
    "take",
    "streams",
)  # each stands on those before it
_DIGITS = 12


class Library(Struct, frozen=True):
    """Versions live beside each other in a server: control planes need not all be replaced at once."""

    name: str
    text: str


@cache
def library() -> Library:
    folder = files(__package__) / "lua"
    parts = [(folder / "lib" / f"{part}.lua").read_text() for part in _PARTS]
    functions = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".lua"))
    # Each file of functions is a block: what it names for itself is its own.
    blocks = [f"do\n{(folder / name).read_text()}end\n" for name in functions]
    body = "\n".join([*parts, *blocks])
    name = f"muster_{sha256(body.encode()).hexdigest()[:_DIGITS]}"
    return Library(name=name, text=f"#!lua name={name}\nlocal LIBRARY = '{name}'\n{body}")
