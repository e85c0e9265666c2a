"""What a terminal sends, as names of keys."""

_SEQUENCES = {
    b"[A": "up", b"OA": "up", b"[B": "down", b"OB": "down", b"[5~": "page_up", b"[6~": "page_down",
    b"[H": "home", b"OH": "home", b"[1~": "home", b"[7~": "home",
    b"[F": "end", b"OF": "end", b"[4~": "end", b"[8~": "end",
}  # fmt: skip
_SINGLE = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\b": "backspace", "\x03": "ctrl_c"}
_ESCAPE = 0x1B
_BEGINNINGS = (b"", b"[", b"O")
_LONGEST = 8  # of the sequences that terminals send for keys


def read_keys(data: bytes, *, more: bool) -> tuple[list[str], bytes]:
    """Return the keys in `data`, and what may be the beginning of one that is still under way (with `more`)."""
    keys: list[str] = []
    while data:
        if data[0] != _ESCAPE:
            char, data = _char(data, more=more)
            if char is None:
                break
            if char in _SINGLE or char.isprintable():
                keys.append(_SINGLE.get(char, char))
            continue
        end = _end_of_sequence(data)
        if end is None and more and data[1:2] in _BEGINNINGS and len(data) < _LONGEST:
            break
        name = "escape" if end is None else _SEQUENCES.get(data[1:end])
        if name is not None:
            keys.append(name)
        data = data[1:] if end is None else data[end:]
    return keys, data


def _char(data: bytes, *, more: bool) -> tuple[str | None, bytes]:
    """Cut off one character of UTF-8; None: its rest has not come."""
    first = data[0]
    size = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4  # noqa: PLR2004 - RFC 3629, 3
    if len(data) < size and more:
        return None, data
    return data[:size].decode(errors="replace"), data[size:]


def _end_of_sequence(data: bytes) -> int | None:
    """Return where a sequence that begins with ESC [ or ESC O ends; None: it is none, or not whole."""
    if data[1:2] == b"O" and len(data) > 2:  # noqa: PLR2004 - one letter follows
        return 3
    if data[1:2] != b"[":
        return None
    for at in range(2, len(data)):
        if 0x40 <= data[at] <= 0x7E:  # noqa: PLR2004 - ECMA-48, 5.4: a final byte
            return at + 1
    return None
