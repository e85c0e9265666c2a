from pathlib import Path

import pytest

from muster.errors import SetupError
from muster.settings import Settings, load_settings, parse_pairs, public_values

NOWHERE: dict[str, str] = {}


def load(**overrides: object) -> Settings:
    return load_settings(overrides, env=NOWHERE, file=None)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_listen_on_loopback_only() -> None:
    assert load().listen_addresses == [("127.0.0.1", 8090)]


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "muster.toml"
    file.write_text('model = "from-file"\npool = "from-file"\nregion = "from-file"\n')
    env = {"MUSTER_MODEL": "from-env", "MUSTER_POOL": "from-env"}
    settings = load_settings({"model": "from-flag", "region": None}, env=env, file=file)
    assert (settings.model, settings.pool, settings.region) == ("from-flag", "from-env", "from-file")


def test_muster_toml_in_the_current_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "muster.toml").write_text("worker_slots = 7\n")
    assert load_settings(env=NOWHERE).worker_slots == 7


@pytest.mark.parametrize(
    ("env", "nearest"), [("MUSTER_LISTNE", "MUSTER_LISTEN"), ("MUSTER_HEARTBEAT", "MUSTER_HEARTBEAT_INTERVAL_S")]
)
def test_an_unknown_environment_name_is_refused_naming_the_nearest(env: str, nearest: str) -> None:
    with pytest.raises(SetupError, match=f"{env}.*{nearest}"):
        load_settings(env={env: "x"})


def test_an_unknown_name_in_the_file_or_a_flag_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("tokn = 'x'\n")
    with pytest.raises(SetupError, match=r"tokn.*nearest known one is token"):
        load_settings(env=NOWHERE, file=file)
    with pytest.raises(SetupError, match="nearest known one is listen"):
        load(lissten="x")


def test_older_names_are_read_and_new_ones_win() -> None:
    env = {"NUM_GPUS": "3", "MACHINE_ID": "m1", "REDIS_URL": "redis://a", "MUSTER_VALKEY_URL": "valkey://b"}
    settings = load_settings(env=env)
    assert (settings.num_gpus, settings.machine_id, settings.valkey_url) == ("3", "m1", "valkey://b")


def test_muster_debug_is_no_setting() -> None:
    assert load_settings(env={"MUSTER_DEBUG": "1"}) == load()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"listen": "0.0.0.0:8090"}, "without a token"),
        ({"listen": "8090"}, "host:port"),
        ({"listen": "127.0.0.1:99999"}, "host:port"),
        ({"listen": " , "}, "empty"),
        ({"heartbeat_interval_s": 10.0, "stale_after_s": 5.0}, "above heartbeat_interval_s"),
        ({"stale_after_s": 50.0, "dead_after_s": 40.0}, "dead_after_s"),
        ({"job_sweep_s": 10.0}, "job_lease_s"),
        ({"job_retry_base_s": 100.0}, "job_retry_max_s"),
        ({"job_payload_bytes_max": 100_000_000}, "request_bytes_max"),
        ({"num_gpus": "many"}, "num_gpus"),
        ({"num_gpus": "65"}, "num_gpus"),
        ({"strategy": "best"}, "unknown strategy"),
        ({"log_level": "loud"}, "unknown log_level"),
        ({"link": "pigeon"}, "unknown link"),
        ({"labels": "gpu"}, "labels must be key=value"),
        ({"attach": "ollama="}, "attach must be key=value"),
        ({"worker_slots": "zero"}, "worker_slots"),
        ({"worker_slots": 0}, "worker_slots"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name_and_a_next_step(overrides: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError, match=said) as caught:
        load_settings(overrides, env=NOWHERE)
    assert caught.value.next_step


def test_every_address_may_listen_once_there_is_a_token() -> None:
    assert load(listen="0.0.0.0:1,[::1]:2", token="t").listen_addresses == [("0.0.0.0", 1), ("::1", 2)]


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("a = [")
    with pytest.raises(SetupError, match=r"broken\.toml is not TOML"):
        load_settings(env=NOWHERE, file=broken)
    with pytest.raises(SetupError, match=r"cannot read .*nowhere\.toml"):
        load_settings(env=NOWHERE, file=tmp_path / "nowhere.toml")


def test_pairs_keep_what_stands_after_the_first_equals_sign() -> None:
    assert parse_pairs("a=b, ollama=http://h/?x=1", "attach") == [("a", "b"), ("ollama", "http://h/?x=1")]


def test_secrets_are_masked_when_shown() -> None:
    shown = public_values(load(token="secret", valkey_url="redis://:pw@h"))
    assert "secret" not in str(shown)
    assert "pw" not in str(shown)


def test_a_fleet_api_of_nothing_is_none_and_the_default_is_our_own() -> None:
    assert load_settings({}, env={}).fleet_api_url == "self"
    assert load_settings({}, env={"FLEET_API_URL": ""}).fleet_api_url == ""
    with pytest.raises(SetupError, match="fleet_api_url"):
        load_settings({}, env={"FLEET_API_URL": "somewhere"})
