"""What the node's file says of a service: where it is, what a job may ask of it, and how it answers."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

Path = Annotated[str, Meta(pattern="^/[^?#]*$")]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Bytes = Annotated[int, Meta(ge=1, le=16 * 1024**3)]
Words = tuple[str | int | bool, ...]


class Polling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a service that answers at once and works later is asked for the end.

    `id` is where in its first answer the id stands, which takes the place of `{id}` in `status` and `cancel`. The
    others are places in the answer to `status`: work has ended well when at `state` stands one of `done`, badly when
    one of `failed`.
    """

    id: str
    status: Annotated[str, Meta(pattern="^/")]
    state: str = "status"
    done: Words = ("completed", "succeeded", "done")
    failed: Words = ("failed", "error", "cancelled", "canceled")
    result: str = ""
    error: str = "error"
    progress: str | None = None  # a number, 0 to 1, or 0 to 100
    cancel: Annotated[str, Meta(pattern="^/")] | None = None
    cancel_method: Literal["POST", "DELETE"] = "POST"
    every_s: Annotated[float, Meta(ge=0.05, le=600)] = 1.0


class Streaming(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where in each event stands how far it is, what it says, and the text to add to what was told before.

    The result is the last event, or what stands in it at `result`; with `text` it is the whole text.
    """

    progress: str | None = None
    message: str | None = None
    text: str | None = None
    result: str = ""


class WebService(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[http]]` of a node's file. Jobs ask for it as `http:NAME`; they say no host, and no path but these.

    `headers` may have `{env:NAME}` for what is secret. `answer` says how it answers: at once, by a status to be asked
    for (`poll`), or in events.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    url: Annotated[str, Meta(pattern="^https?://")]
    path: Path = "/"
    paths: tuple[Path, ...] = ()
    methods: tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], ...] = ("POST",)
    headers: dict[str, str] = {}
    health: Path | None = None
    answer: Literal["once", "poll", "stream"] = "once"
    poll: Polling | None = None
    stream: Streaming = Streaming()
    slots: Annotated[int, Meta(ge=1, le=1024)] | None = None
    timeout_s: Seconds = 3600.0  # the whole of one attempt
    silence_s: Seconds = 300.0  # between two bytes, and until the first
    answer_bytes_max: Bytes = 67_108_864
    retried: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = (408, 425, 429, 500, 502, 503, 504)

    def problem(self) -> str | None:
        """Return what does not fit together."""
        parts = urlsplit(self.url)
        if not parts.hostname or parts.query or parts.fragment:
            return f"url must be http://HOST:PORT, with a path at most, got {self.url!r}"
        if self.answer == "poll" and self.poll is None:
            return 'answer = "poll" needs a table [http.poll] with at least id and status'
        return None


class WebRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job's payload. `body` is sent as JSON; `path` is one of those that the node's file allows."""

    path: Path | None = None
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    query: dict[str, str | int | float | bool] = {}
    body: Any = None
