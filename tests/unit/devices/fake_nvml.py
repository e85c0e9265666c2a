"""A stand-in for `pynvml`: cards that answer, that leave questions open, that are lost, and a driver that hangs."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

GIB = 1024**3


class NVMLError(Exception):
    pass


class Card:
    """`silent` are the questions that it does not answer."""

    def __init__(self, name: str, total_gib: int, *, silent: tuple[str, ...] = ()) -> None:
        self.name = name
        self.total_bytes = total_gib * GIB
        self.used_bytes = GIB
        self.silent = silent
        self.lost = False


class FakeNvml:
    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *cards: Card) -> None:
        self.cards = list(cards)
        self.init_problem: str | None = None
        self.count_problem: str | None = None
        self.inits = 0
        self.running = 0
        self.most_running = 0
        self.answering = threading.Event()  # cleared: every call hangs
        self.answering.set()

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name, as the two below
        self.inits += 1
        if self.init_problem:
            raise NVMLError(self.init_problem)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - as above
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.answering.wait()
        self.running -= 1
        if self.count_problem:
            raise NVMLError(self.count_problem)
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802 - as above
        if self.cards[index].lost:
            raise NVMLError("GPU is lost")
        return self.cards[index]

    def __getattr__(self, question: str) -> Any:
        answers: dict[str, Callable[..., Any]] = {
            "nvmlDeviceGetName": lambda card: card.name,
            "nvmlDeviceGetUUID": lambda card: f"GPU-{card.name}",
            "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(total=card.total_bytes, used=card.used_bytes),
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=37, memory=5),
            "nvmlDeviceGetPowerUsage": lambda _: 123_456,
            "nvmlDeviceGetTemperature": lambda _card, _sensor: 61,
        }

        def ask(card: Card, *arguments: Any) -> Any:
            if question in card.silent:
                raise NVMLError("Not Supported")
            return answers[question](card, *arguments)

        return ask
