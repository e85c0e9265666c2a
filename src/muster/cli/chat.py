import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from muster.cli.client import FIRST_TOKEN_TIMEOUT_S, Client, Refused
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import console, print_json
from muster.sse import read_events

Message = dict[str, str]


def chat(
    model: Annotated[str, typer.Argument(help="A model of the fleet (muster models).")],
    prompt: Annotated[str | None, typer.Argument(help="What to say; without it a conversation begins.")] = None,
    system: Annotated[str | None, typer.Option(help="Instruction that stands before the conversation.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="How long an answer may be.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0: always the likeliest word.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Talk to a model: one answer, or a conversation until Ctrl-D."""
    client = Client.find(server)
    options = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    asked = {name: value for name, value in options.items() if value is not None}
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None:
        history.append({"role": "user", "content": prompt})
        if as_json:
            print_json(client.post("/v1/chat/completions", asked | {"messages": history}))
        else:
            _answer(client, asked, history)
        return
    _converse(client, asked, history)


def _converse(client: Client, asked: dict[str, Any], history: list[Message]) -> None:
    console(stderr=True).print(f"Talking to {asked['model']}; Ctrl-D ends it.", markup=False, style="dim")
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        if line.strip():
            history.append({"role": "user", "content": line})
            history.append({"role": "assistant", "content": _answer(client, asked, history)})


def _answer(client: Client, asked: dict[str, Any], history: list[Message]) -> str:
    said = []
    for piece in _stream(client, asked | {"messages": history, "stream": True}):
        said.append(piece)
        print(piece, end="", flush=True)
    print()
    return "".join(said)


def _stream(client: Client, body: dict[str, Any]) -> Iterator[str]:
    with client.open("POST", "/v1/chat/completions", body=body, silence_s=FIRST_TOKEN_TIMEOUT_S) as answer:
        for event in read_events(answer.lines()):
            if event.data == b"[DONE]":
                return
            chunk = json.loads(event.data)
            if "error" in chunk:  # the stream had begun, so the failure comes as its last event
                raise Refused(200, chunk)
            for choice in chunk.get("choices", []):
                yield choice.get("delta", {}).get("content") or ""
