from pathlib import Path

from muster.agent.services.log_file import LogFile


def test_a_log_belongs_to_its_owner_alone_and_is_continued(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "logs" / "llama.log")
    for text in (b"one\n", b"two\n"):
        with log_file.open() as output:
            output.write(text)
    assert log_file.path.read_bytes() == b"one\ntwo\n"
    assert log_file.path.stat().st_mode & 0o777 == 0o600


def test_last_words_are_those_since_a_place(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "llama.log")
    assert log_file.since(0) == []
    with log_file.open() as output:
        output.write(b"from an earlier life\n")
        position = log_file.size()
        output.write(b"one\n\ntwo\xff\nthree\n")
        assert log_file.since(position, lines_max=2) == ["two\ufffd", "three"]
        assert log_file.since(10**9) == ["from an earlier life", "one", "two\ufffd", "three"]


def test_a_tail_reaches_into_the_part_before_and_shows_no_secret(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "llama.log")
    log_file.path.with_name("llama.log.1").write_bytes(b"zero\none\n")
    log_file.path.write_bytes(b"two amqp://me:hidden@broker\nthree\n")

    assert log_file.tail(3, 1000) == ["one", "two amqp://me:***@broker", "three"]
    assert log_file.tail(10, 6) == ["three"]


def test_a_log_that_nobody_tends_is_kept_to_its_size_by_who_asks(tmp_path: Path) -> None:
    log_file = LogFile(tmp_path / "machine.log", 10)
    log_file.rotate_if_large()
    with log_file.open() as output:
        for number in range(6):
            output.write(b"line %d is long\n" % number)
            log_file.rotate_if_large()
        output.write(b"last\n")
    assert log_file.path.read_bytes() == b"last\n"
    assert [path.read_text() for path in sorted(tmp_path.glob("*.log.*"))] == [
        f"line {number} is long\n" for number in (5, 4, 3)
    ]
