"""Where values come from: flag > environment (`MUSTER_*`) > `muster.toml` > default.

A name that is not known is an error that says which known one is nearest.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import SetupError
from muster.settings.fields import Settings
from muster.settings.rules import check

# Names under which the systems before us took the same values; MUSTER_* wins over them.
SEED_NAMES = {
    "RABBITMQ_URL": "rabbitmq_url",
    "REDIS_URL": "valkey_url",
    "NUM_GPUS": "num_gpus",
    "MACHINE_ID": "machine_id",
    "INSTANCE_ID": "instance_id",
    "NODE_TYPE": "node_type",
    "NEBULA_IP": "nebula_ip",
    "CONTROL_PLANE_ADDR": "control_plane",
    "FLEET_API_URL": "fleet_api_url",
    "LLM_INSTANCE_TYPE": "cloud_instance_type",
    "HF_ENDPOINT": "hub_url",
    "HF_TOKEN": "hub_token",
}
_EMPTY_COUNTS = frozenset({"FLEET_API_URL"})  # set to nothing it means: none
# Read by the command line itself, not settings.
_OTHER_NAMES = frozenset({"MUSTER_DEBUG"})


def load_settings(
    overrides: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Merge file, environment and flags (`overrides`; None means not given); SetupError says what is wrong."""
    env = os.environ if env is None else env
    values: dict[str, object] = {}
    path = file or Path("muster.toml")
    if file is not None or path.is_file():
        values |= _read_file(path)
    values |= _read_environment(env)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for name in given:
        _check_name(name, name, "setting")
    values |= given
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        raise SetupError(
            f"a setting does not fit: {text.replace(' - at `$.', ' (').rstrip('`')}{')' if ' - at ' in text else ''}",
            next_step="see docs/reference/settings.md for what it takes",
        ) from None
    check(settings)
    return settings


def _read_file(path: Path) -> dict[str, object]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", next_step="check the path and its rights") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not TOML: {error}", next_step="correct that line") from None
    for name in values:
        _check_name(name, name, f"setting in {path}")
    return values


def _read_environment(env: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, field in SEED_NAMES.items():
        if field in Settings.__struct_fields__ and (env.get(name) or (name in env and name in _EMPTY_COUNTS)):
            values[field] = env[name]
    for name, value in env.items():
        if name.startswith("MUSTER_") and name not in _OTHER_NAMES:
            field = name.removeprefix("MUSTER_").lower()
            _check_name(field, name, "environment variable")
            values[field] = value
    return values


def _check_name(field: str, shown: str, what: str) -> None:
    if field in Settings.__struct_fields__:
        return
    near = difflib.get_close_matches(field, Settings.__struct_fields__, n=1, cutoff=0.0)[0]
    nearest = f"MUSTER_{near.upper()}" if shown.startswith("MUSTER_") else near
    raise SetupError(
        f"unknown {what} {shown}; the nearest known one is {nearest}", next_step=f"rename or remove {shown}"
    )


_SECRETS = (
    "token",
    "valkey_url",
    "rabbitmq_url",
    "rabbitmq_management_url",
    "hub_token",
    "cloud_join_token",
    "cloud_rabbitmq_url",
)


def public_values(settings: Settings) -> dict[str, Any]:
    """All values with secrets masked, for `doctor` and the log."""
    values = msgspec.structs.asdict(settings)
    for name in _SECRETS:
        if values[name]:
            values[name] = "***"
    return values
