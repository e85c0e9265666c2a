"""The simulated ComfyUI as a process of its own: `python -m muster.connectors.comfyui.simulated --port N`."""

import argparse
import sys
from pathlib import Path

from muster.connectors.comfyui.simulated import VERSION


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulated-comfyui", description="A ComfyUI that computes nothing.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--gpu", type=int, default=0, help="the GPU that it pretends to work on")
    parser.add_argument("--folder", type=Path, default=Path("comfyui"), help="holds models, input, output and temp")
    parser.add_argument("--step-ms", type=float, default=50.0, help="how long a step of a sampler takes")
    parser.add_argument("--version", action="version", version=VERSION)
    asked = parser.parse_args()

    from aiohttp import web  # noqa: PLC0415 - the version is told without it

    from muster.connectors.comfyui.simulated.server import SimulatedComfyUI  # noqa: PLC0415 - as above

    sys.stdout.write(f"simulated ComfyUI {VERSION} on GPU {asked.gpu}: http://{asked.host}:{asked.port}\n")
    sys.stdout.flush()
    server = SimulatedComfyUI(asked.folder, gpu=asked.gpu, step_s=asked.step_ms / 1000)
    web.run_app(server.app(), host=asked.host, port=asked.port, print=None, access_log=None, shutdown_timeout=1.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
