"""The Lua files as scripts: each with the parts that it includes in front, known to the server by its digest."""

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files

from msgspec import Struct

_INCLUDE = re.compile(r"-- include: (.+)\n")


class Script(Struct, frozen=True):
    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script in `lua/<name>.lua`."""
    folder = files(__package__) / "lua"
    body = (folder / f"{name}.lua").read_text()
    included = _INCLUDE.match(body)
    parts = ["base", *(included.group(1).split(", ") if included else [])]
    text = "\n".join([*((folder / "lib" / f"{part}.lua").read_text() for part in parts), body])
    return Script(name=name, text=text, sha=sha1(text.encode(), usedforsecurity=False).hexdigest())
