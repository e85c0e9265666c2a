"""Bounds on size and habits, so that the house stays one that a newcomer can read."""

import ast
import re
from pathlib import Path

from tests.architecture.tree import ROOT, SOURCE, TESTS, parsed, python_files, shown, tracked_files

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PORT_METHODS_MAX = 10
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
# The one polls for a condition, with a deadline; the other hurts a fleet at the times of a schedule.
MAY_SLEEP = {TESTS / "waiting.py", TESTS / "campaign" / "pace.py"}

# Silenced with nothing said after it: the reason belongs on the same line.
SILENCED = re.compile(r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|type:\s*ignore(?:\[[a-z\-, ]+\])?)\s*$")
UNFINISHED = re.compile(r"#\s*(?:TODO|FIXME|XXX|HACK)\b|NotImplementedError")
SKIPPED = re.compile(r"pytest\.(?:mark\.(?:skip|xfail)(?!.*reason=)|skip\(\)|importorskip\()")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(parsed(path)) if isinstance(node, Function)]


def test_no_module_is_too_long_to_read() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in python_files(ROOT)}

    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES_MAX} == {}


def test_no_function_is_too_long_to_read() -> None:
    long = [
        f"{shown(path)}:{function.lineno} {function.name} has {lines} lines"
        for path in python_files(SOURCE)
        for function in functions(path)
        if (lines := (function.end_lineno or function.lineno) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert long == []


def test_every_module_is_named_for_what_it_holds() -> None:
    assert [shown(path) for path in python_files(ROOT) if {path.stem, path.parent.name} & NAMES_THAT_SAY_NOTHING] == []


def test_every_port_is_small() -> None:
    modules = [parsed(path) for path in (SOURCE / "ports").glob("*.py")]
    ports = [node for module in modules for node in module.body if isinstance(node, ast.ClassDef)]
    sizes = {
        port.name: sum(isinstance(part, Function) for part in port.body)
        for port in ports
        if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in port.bases)
    }

    assert sizes, "there is no Protocol any more?"
    assert {name: methods for name, methods in sizes.items() if methods > PORT_METHODS_MAX} == {}


def test_tests_wait_for_conditions_and_never_for_time() -> None:
    sleeps = [
        f"{shown(path)}:{call.lineno}"
        for path in python_files(TESTS)
        if path not in MAY_SLEEP
        for call in ast.walk(parsed(path))
        if isinstance(call, ast.Call) and is_sleep(call)
    ]

    assert sleeps == []


def is_sleep(call: ast.Call) -> bool:
    """sleep(0) lets others run and takes no time."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    takes_no_time = len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
    return name == "sleep" and not takes_no_time


def test_every_package_has_tests() -> None:
    packages = {path.parent for path in python_files(SOURCE) if path.name == "__init__.py"} - {SOURCE}
    imported = "\n".join(path.read_text() for path in python_files(TESTS))
    untested = []
    for package in packages:
        name = ".".join(package.relative_to(SOURCE.parent).parts)
        if not re.search(rf"(?:from|import) {re.escape(name)}\b", imported):
            untested.append(name)

    assert untested == []


def test_what_is_silenced_skipped_or_unfinished_says_why() -> None:
    found = [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in python_files(ROOT)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if SILENCED.search(line) or UNFINISHED.search(line) or SKIPPED.search(line)
    ]

    assert found == []


def test_nothing_that_was_made_is_kept() -> None:
    made = {".pyc", ".log", ".sqlite", ".rdb", ".aof", ".gguf"}

    assert [shown(path) for path in tracked_files() if path.suffix in made] == []
