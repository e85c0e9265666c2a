import shlex

import pytest

from muster.cli.startup import StartupDisplay, welcome


def test_steps_are_one_line_each_and_a_download_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with StartupDisplay(with_token=False) as display:
        display.progress("starting the embedded Valkey", None)
        for percent in range(0, 101, 2):
            display.progress("fetching the model", percent / 100)
        display.progress("ready", None)

    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "starting the embedded Valkey"
    assert lines[1:-1] == [f"fetching the model: {tenth * 10} %" for tenth in range(11)]
    assert lines[-1] == "ready"


def test_the_welcome_says_where_everything_is() -> None:
    text = "\n".join(welcome(["http://127.0.0.1:8090"], "smollm2", with_token=False))

    assert "http://127.0.0.1:8090/v1" in text
    (curl,) = [line for line in text.splitlines() if "curl" in line]
    assert '"model": "smollm2"' in shlex.split(curl)[-1]


def test_without_a_model_nothing_is_asked_of_one() -> None:
    assert "curl" not in "\n".join(welcome(["http://127.0.0.1:8090"], None, with_token=False))


def test_with_a_token_the_line_to_try_shows_it_without_saying_it() -> None:
    text = "\n".join(welcome(["http://127.0.0.1:8090"], "smollm2", with_token=True))

    assert '-H "Authorization: Bearer $MUSTER_TOKEN"' in text
