"""Which workers chat, but do not serve `/v1/responses`: they have said so when they were asked.

They are asked again after a while, for an engine may have been replaced by a newer one.
"""

_BELIEVED_S = 600.0
_WORKERS_MAX = 20_000


class ChatOnly:
    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def note(self, worker: str, now_s: float) -> None:
        if len(self._until_s) >= _WORKERS_MAX:
            self._until_s.clear()  # machines come and go for years
        self._until_s[worker] = now_s + _BELIEVED_S

    def has(self, worker: str, now_s: float) -> bool:
        return now_s < self._until_s.get(worker, 0.0)
