"""An answer while it grows, as a job's progress carries it."""

from muster.domain.job import Progress

TEXT_CHARS_MAX = 8192


def so_far(text: str, *, fraction: float | None, message: str) -> Progress:
    """Carry the end of what there is, and where in the whole it begins.

    Of several reports only the newest need arrive, so each one says all that a follower can have missed.
    """
    begin = max(0, len(text) - TEXT_CHARS_MAX)
    return Progress(fraction=fraction, message=message, text=text[begin:], text_at=begin)
