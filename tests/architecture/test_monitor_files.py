"""The monitor as served: words from the server's enums, libraries as recorded, nothing from outside."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import muster

ROOT = Path(__file__).parents[2]
WEB = Path(muster.__file__).parent / "web"
VENDOR = WEB / "vendor"
OURS = sorted(path for path in WEB.iterdir() if path.suffix in {".js", ".css", ".html"})


def test_lesson_the_vocabulary_is_that_of_the_servers_enums() -> None:
    check = [sys.executable, str(ROOT / "ui" / "generate_vocabulary.py"), "--check"]
    outcome = subprocess.run(check, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_the_vendored_libraries_are_the_recorded_ones() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \|.*?\(([^)]+)\) \| `([0-9a-f]{64})`", (VENDOR / "VENDOR.md").read_text(), re.MULTILINE
    )
    recorded = {name: digest for name, _, digest in rows}
    assert recorded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}
    assert all((VENDOR / licence).is_file() for _, licence, _ in rows)


def test_every_import_is_a_file_beside_it() -> None:
    for path in [*WEB.glob("*.js"), *VENDOR.glob("*.js")]:
        for target in re.findall(r"""\bfrom\s*["']([^"']+)["']""", path.read_text()):
            assert (path.parent / target).is_file(), f"{path.name} imports {target}"


def test_nothing_is_loaded_from_elsewhere_and_no_script_or_style_stands_in_the_page() -> None:
    for path in OURS:
        assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", path.read_text()), path.name
    page = (WEB / "index.html").read_text()
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="/web/app.js">']
    assert "<style" not in page
    assert not re.search(r"\s(on\w+|style)=", page)
    for asset in re.findall(r'(?:href|src)="/web/([^"]+)"', page):
        assert (WEB / asset).is_file(), asset
