from pathlib import Path

from muster.agent.services.log_file import LogFile


def test_a_log_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "logs" / "llama.log")
    with log_file.open() as output:
        output.write(b"hello\n")
    assert log_file.path.stat().st_mode & 0o777 == 0o600


def test_a_large_log_is_set_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "llama.log", bytes_max=10)
    with log_file.open() as output:
        for number in range(6):
            output.write(b"line %d is long\n" % number)
            log_file.rotate_if_large()
        output.write(b"last\n")
    assert log_file.path.read_bytes() == b"last\n"
    assert [path.read_text() for path in sorted(tmp_path.glob("*.log.*"))] == [
        f"line {number} is long\n" for number in (5, 4, 3)
    ]


def test_a_small_log_stays(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "llama.log")
    log_file.rotate_if_large()
    with log_file.open() as output:
        output.write(b"x\n")
    log_file.rotate_if_large()
    assert log_file.size() == 2


def test_the_last_words_are_those_since_a_start(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "llama.log")
    assert log_file.since(0) == []
    with log_file.open() as output:
        output.write(b"from an earlier life\n")
        position = log_file.size()
        output.write(b"one\n\ntwo\xff\nthree\n")
        assert log_file.since(position, lines_max=2) == ["two\ufffd", "three"]
        assert log_file.since(10**9) == ["from an earlier life", "one", "two\ufffd", "three"]
        output.write(b"y" * 10_000 + b"\nend")
        assert log_file.since(position)[-1] == "end"


def test_the_tail_reaches_into_the_file_before(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "llama.log", bytes_max=10)
    assert log_file.tail(5, 1000) == []
    with log_file.open() as output:
        output.write(b"one\ntwo\nthree\n")
        log_file.rotate_if_large()
        output.write(b"four\nfive\xff\n")
    assert log_file.tail(3, 1000) == ["three", "four", "five\ufffd"]
    assert log_file.tail(9, 1000) == ["one", "two", "three", "four", "five\ufffd"]
    assert log_file.tail(1, 1000) == ["five\ufffd"]
    assert log_file.tail(9, 8) == ["r", "five\ufffd"]
