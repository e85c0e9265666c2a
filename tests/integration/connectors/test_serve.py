"""The process that serves a model: how it starts, fails, holds out under a queue, and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from muster.connectors.llamacpp.serve import Exit
from tests.llama_server import start_llama_server
from tests.muster_process import free_port
from tests.waiting import eventually_sync

LONG_CHAT = {
    "messages": [{"role": "user", "content": "the"}],
    "max_tokens": 1900,
    "ignore_eos": True,
    "stream": True,
    "logprobs": True,
    "top_logprobs": 270,
}


def serve(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muster.connectors.llamacpp.serve", *arguments],
        env=os.environ | (env or {}),
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def start_chat(port: int, body: Any) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
    return connection


def test_a_stop_is_clean_and_quick_also_while_a_stream_runs(tiny_model: Path) -> None:
    with start_llama_server(tiny_model) as server, start_chat(server.port, LONG_CHAT) as chat:
        assert chat.recv(100).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0  # stop() fails after 10 s


def test_its_health_answers_while_many_requests_wait(tiny_model: Path) -> None:
    with start_llama_server(tiny_model, slots=1) as server:
        chats = [start_chat(server.port, LONG_CHAT) for _ in range(50)]
        with urllib.request.urlopen(f"{server.url}/health", timeout=10) as answer:
            assert answer.status == 200
        for chat in chats:
            chat.close()


def test_the_model_is_called_as_told_and_no_page_of_a_browser_may_use_it(tiny_model: Path) -> None:
    with start_llama_server(tiny_model, slots=3, alias="my-model") as server:
        request = urllib.request.Request(f"{server.url}/v1/models", headers={"Origin": "https://elsewhere.example"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert not answer.headers.get("Access-Control-Allow-Origin")
            assert [model["id"] for model in json.load(answer)["data"]] == ["my-model"]
        with urllib.request.urlopen(f"{server.url}/slots", timeout=5) as answer:
            assert [slot["n_ctx"] for slot in json.load(answer)] == [2048] * 3


def test_it_ends_with_the_process_that_started_it(tiny_model: Path) -> None:
    port = free_port()
    starter = f"""
import signal, subprocess, sys
from muster.system import die_with_parent
command = [sys.executable, "-m", "muster.connectors.llamacpp.serve", "--model", {str(tiny_model)!r}, "--port", "{port}"]
print(subprocess.Popen(command, preexec_fn=die_with_parent()).pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        eventually_sync(lambda: _listens(port))
        parent.send_signal(signal.SIGKILL)
        eventually_sync(lambda: not _runs(pid))


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    ended = serve("--port", str(free_port()), "--model", str(tmp_path / "nowhere.gguf"))
    assert ended.returncode == Exit.BAD_MODEL
    assert ended.stderr.splitlines() == [
        f"error: cannot read the model {tmp_path}/nowhere.gguf: No such file or directory"
    ]


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    ended = serve("--port", str(free_port()), "--model", str(path))
    assert ended.returncode == Exit.BAD_MODEL
    assert ended.stderr == f"error: {path} is not a GGUF file; give a model in that format\n"


def test_a_model_cut_off_in_its_weights_is_named(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model.read_bytes()[:300_000])
    ended = serve("--port", str(free_port()), "--model", str(path))
    assert ended.returncode == Exit.BAD_MODEL
    assert f"error: llama.cpp cannot load {path}; " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_named(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = serve("--port", str(port), "--model", str(tiny_model))
    assert ended.returncode == Exit.PORT_TAKEN
    assert ended.stderr == f"error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_without_the_engine_it_says_what_to_install(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no such engine')")
    ended = serve("--port", str(free_port()), "--model", str(tiny_model), env={"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == Exit.NO_ENGINE
    assert ended.stderr == ("error: llama.cpp cannot be loaded (no such engine): pip install 'muster[llamacpp]'\n")


@pytest.mark.parametrize("arguments", [("--slots", "0"), ("--slots", "many"), ("--port", "x"), ("--unknown", "1")])
def test_a_wrong_option_is_a_matter_of_usage(tiny_model: Path, arguments: tuple[str, str]) -> None:
    ended = serve("--port", str(free_port()), "--model", str(tiny_model), *arguments)
    assert ended.returncode == Exit.USAGE
    assert arguments[0].lstrip("-") in ended.stderr


@pytest.mark.parametrize("slots", [1, 3, 4])
def test_chats_and_embeddings_come_from_one_server(tiny_model: Path, slots: int) -> None:
    def post(path: str, body: Any) -> Any:
        request = urllib.request.Request(
            server.url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    chat = {"messages": [{"role": "user", "content": "the"}], "max_tokens": 50, "ignore_eos": True}
    with start_llama_server(tiny_model, slots) as server, ThreadPoolExecutor(8) as pool:
        chats = [pool.submit(post, "/v1/chat/completions", chat) for _ in range(4)]
        embeddings = [pool.submit(post, "/v1/embeddings", {"input": "the of " * 100}) for _ in range(4)]
        assert [future.result()["usage"]["completion_tokens"] for future in chats] == [50] * 4
        assert [len(future.result()["data"][0]["embedding"]) for future in embeddings] == [64] * 4
