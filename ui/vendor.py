#!/usr/bin/env python3
"""Copy the monitor's libraries from ui/node_modules to src/muster/web/vendor: users need neither node nor network.

Run `npm ci` in ui/ first. Bare imports become relative ones (an inline import map would need an exception in the
Content-Security-Policy), source map references go (the maps are not shipped), VENDOR.md records what came from where.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

UI = Path(__file__).resolve().parent
MODULES = UI / "node_modules"
VENDOR = UI.parent / "src" / "muster" / "web" / "vendor"


class Library(NamedTuple):
    package: str
    source: str  # below the package
    served_as: str
    imported_as: str


LIBRARIES = (
    Library("preact", "dist/preact.mjs", "preact.js", "preact"),
    Library("preact", "hooks/dist/hooks.mjs", "preact-hooks.js", "preact/hooks"),
    Library("@preact/signals", "dist/signals.mjs", "preact-signals.js", "@preact/signals"),
    Library("@preact/signals-core", "dist/signals-core.mjs", "preact-signals-core.js", "@preact/signals-core"),
    Library("htm", "dist/htm.mjs", "htm.js", "htm"),
)

HEADER = """\
# Libraries of the monitor

Copied by `ui/vendor.py` from the packages pinned in `ui/package-lock.json`; bare imports were made relative and source
map references removed, nothing else was changed. Do not edit these files.

| File | Package | Version | Licence | SHA-256 of the file here | SHA-256 in the package |
|---|---|---|---|---|---|
"""


def localize(code: str) -> str:
    """Return the module with relative imports and without its source map reference."""
    for library in LIBRARIES:
        code = code.replace(f'from"{library.imported_as}"', f'from"./{library.served_as}"')
    return re.sub(r"\n?//# sourceMappingURL=\S+\s*\Z", "\n", code)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    VENDOR.mkdir(parents=True, exist_ok=True)
    rows = []
    for library in LIBRARIES:
        package = MODULES / library.package
        facts = json.loads((package / "package.json").read_text("utf-8"))
        original = (package / library.source).read_bytes()
        served = localize(original.decode()).encode()
        (VENDOR / library.served_as).write_bytes(served)
        licence = f"LICENSE-{library.package.removeprefix('@').replace('/', '-')}.txt"
        shutil.copyfile(package / "LICENSE", VENDOR / licence)
        rows.append(
            f"| `{library.served_as}` | {library.package} | {facts['version']} | [{facts['license']}]({licence}) "
            f"| `{sha256(served)}` | `{sha256(original)}` |\n"
        )
    (VENDOR / "VENDOR.md").write_text(HEADER + "".join(rows), "utf-8")


if __name__ == "__main__":
    main()
