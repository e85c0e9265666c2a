"""What is written on a machine, so that any control plane and any command line can tell whose it is and what for.

Whoever may list the account's machines reads tags: no secret belongs here.
"""

from collections.abc import Mapping
from typing import Any

from muster.domain.machine import Launch
from muster.errors import InvalidInput

FLEET = "muster:fleet"
_NODE = "muster:node"
_MODELS = "muster:models"
_OWNER = "muster:owner"
_IDLE_STOP_S = "muster:idle-stop-s"
_NAME = "Name"  # what consoles show

_VALUE_CHARS_MAX = 256
# Tag values may not hold commas everywhere; a model's name never holds a space.
_BETWEEN = " "


def tags_of(launch: Launch) -> dict[str, str]:
    models = _BETWEEN.join(launch.models)
    if len(models) > _VALUE_CHARS_MAX:
        raise InvalidInput(
            f"the names of a machine's models may have {_VALUE_CHARS_MAX} characters in all, got {len(models)}",
            field="models",
        )
    tags = {
        _NAME: f"{launch.fleet}-{launch.name}",
        FLEET: launch.fleet,
        _NODE: launch.name,
        _MODELS: models,
        _OWNER: launch.owner[:_VALUE_CHARS_MAX],
    }
    if launch.idle_stop_s is not None:
        tags[_IDLE_STOP_S] = f"{launch.idle_stop_s:g}"
    return tags


def facts_in(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a Machine that its tags tell; what somebody spoilt by hand is left out."""
    facts: dict[str, Any] = {
        "fleet": tags.get(FLEET, ""),
        "name": tags.get(_NODE, ""),
        "owner": tags.get(_OWNER, ""),
        "models": tuple(tags.get(_MODELS, "").split()),
    }
    try:
        idle_stop_s = float(tags[_IDLE_STOP_S])
    except (KeyError, ValueError):
        return facts
    return facts | {"idle_stop_s": idle_stop_s} if idle_stop_s >= 0 else facts
