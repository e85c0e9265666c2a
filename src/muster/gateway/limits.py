"""Every bound of the gateway in one place; the unit is in the name."""

from msgspec import Struct


class GatewayLimits(Struct, frozen=True, kw_only=True):
    head_bytes_max: int = 65_536
    body_bytes_max: int = 33_554_432
    # What a client may send ahead while its last request is being answered; then it is no longer read.
    pipelined_bytes_max: int = 65_536
    connections_max: int = 20_000

    head_timeout_s: float = 15.0  # from the first byte of a request to the end of its head
    body_idle_timeout_s: float = 60.0  # between two pieces of a request's body
    keepalive_idle_s: float = 75.0  # between two requests
    linger_s: float = 2.0  # how long a refused client may go on sending before it is cut off

    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 300.0
    idle_timeout_s: float = 120.0  # silence within an answer
    attempts_max: int = 3
    keep_context: bool = True  # Ollama: less context than a model is loaded with does not load it again

    # Deadlines that are learned lie between these floors and the two settings above (see patience.py).
    patience_factor: float = 4.0  # times what nearly all answers took; 0: only the settings count
    patience_samples_min: int = 8
    first_byte_floor_s: float = 10.0
    idle_floor_s: float = 10.0

    quarantine_s: float = 2.0  # the first time; doubles each time until
    quarantine_max_s: float = 300.0
    probe_timeout_s: float = 30.0

    wake_waiting_max: int = 100  # requests that wait for one model's machine
    wake_keepalive_s: float = 10.0  # a streaming caller who waits hears something so often
    waiting_max: int = 1000  # requests that wait for a slot of one model
    wait_s: float = 300.0  # and how long each of them does at most
    decisions_max: int = 2000  # requests of which it is kept why they went where they did

    resume_max_s: float = 600.0  # for how long an answer is kept for a caller who comes back; 0: none is
    stream_bytes_max: int = 4_194_304  # of one such answer; a longer one is not kept
    streams_bytes_max: int = 268_435_456  # of all in the store; while there are more, none is begun

    # llama.cpp and uvicorn (vLLM) close after 5 s of idleness, and llama.cpp keeps a thread busy for every idle
    # connection: closing first avoids both sending into a dying connection and starving the engine.
    upstream_idle_s: float = 4.0
    upstream_idle_max: int = 1024  # per endpoint
    answer_bytes_max: int = 67_108_864  # what may be collected of an answer that is translated as a whole

    @property
    def sweep_s(self) -> float:
        """How often deadlines are looked at: a fraction of the shortest, within reason."""
        shortest = min(
            self.first_byte_timeout_s,
            self.idle_timeout_s,
            self.first_byte_floor_s,
            self.idle_floor_s,
            self.quarantine_s,
            self.probe_timeout_s,
            self.head_timeout_s,
            self.upstream_idle_s,
            self.wake_keepalive_s,
        )
        return min(1.0, max(0.02, shortest / 4))
