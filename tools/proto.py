"""Write the python files of the gRPC service from its .proto (`make proto`); a test holds them against it."""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PACKAGE = Path(__file__).parents[1] / "src" / "muster" / "links" / "grpc"
# The name under which reflection shows it, and others import it.
NAME = "muster/v1/agent_control.proto"
MADE = ("agent_control_pb2.py", "agent_control_pb2.pyi")


def generated() -> dict[Path, str]:
    with tempfile.TemporaryDirectory() as out:
        arguments = [
            f"--proto_path={Path(NAME).parent}={PACKAGE}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            NAME,
        ]
        if protoc.main(["protoc", *arguments]) != 0:
            sys.exit(1)
        folder = Path(out) / Path(NAME).parent
        return {PACKAGE / name: (folder / name).read_text(encoding="utf-8") for name in MADE}


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
