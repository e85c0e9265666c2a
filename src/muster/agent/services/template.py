"""From a template to what is really started: instances and filled-in placeholders.

`{python}` this interpreter · `{host}` where the service must listen · `{port}` its port · `{gpu}` index of its GPU ·
`{index}` number of the instance · `{model_path}` and `{bundle_path}` where the template's `model` and `bundle` are ·
`{model:NAME}` path of any other fetched model. Other braces are left alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from muster.agent.config import ServiceTemplate
from muster.domain.source import parse_source
from muster.errors import InvalidInput

PLACEHOLDERS = ("python", "host", "port", "gpu", "index", "model_path", "bundle_path", "model:NAME")

_OWN = {"model_path": "model", "bundle_path": "bundle"}
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)(?::([^{}]+))?\}")


class Instance(Struct, frozen=True, kw_only=True):
    """One process to be: `llama` for the node, or `llama-gpu0`, `llama-gpu1` and so on."""

    name: str
    template: ServiceTemplate
    index: int = 0
    gpu_index: int | None = None

    @property
    def port(self) -> int | None:
        return None if self.template.port is None else self.template.port + self.index


def instances(templates: Iterable[ServiceTemplate], gpu_indices: Sequence[int]) -> list[Instance]:
    found = []
    for template in templates:
        if template.per == "node":
            found.append(Instance(name=template.name, template=template))
        else:
            found += [
                Instance(name=f"{template.name}-gpu{gpu}", template=template, index=index, gpu_index=gpu)
                for index, gpu in enumerate(gpu_indices)
            ]
    return found


def models_of(template: ServiceTemplate) -> list[str]:
    """Return the names of the models that must be there before it starts."""
    own = [template.model] if template.model else []
    named = [argument for name, argument in _placeholders(template) if name == "model"]
    return list(dict.fromkeys([*own, *named]))


def bundles_of(template: ServiceTemplate) -> list[str]:
    """Return the name of the archive that must have been unpacked before it starts, if it has one."""
    return [template.bundle] if template.bundle else []


def paths_of(template: ServiceTemplate, fetched: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the placeholders for what the template itself names."""
    own = {"model_path": template.model, "bundle_path": template.bundle}
    return {name: fetched[wanted] for name, wanted in own.items() if wanted}


def check(template: ServiceTemplate) -> None:
    """Raise InvalidInput naming a placeholder nobody could fill, what nobody could fetch, or a limit that is none."""
    template.limits.cgroup_files()
    _check_sources(template)
    if template.on_demand and not template.serves:
        raise InvalidInput(
            'on_demand needs serves = ["MODEL"]: nobody else says its name while it rests', field="serves"
        )
    known = {name.partition(":")[0] for name in PLACEHOLDERS}
    for name, argument in _placeholders(template):
        if name not in known or (name == "model") != bool(argument):
            shown = f"{name}:{argument}" if argument else name
            known_ones = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise InvalidInput(f"{{{shown}}} cannot be filled in; known are {known_ones}", field="command")
        if name in _OWN and not getattr(template, _OWN[name]):
            raise InvalidInput(f'{{{name}}} needs {_OWN[name]} = "…"', field="command")
        if name == "gpu" and template.per != "gpu":
            raise InvalidInput('{gpu} needs per = "gpu"', field="command")


def _check_sources(template: ServiceTemplate) -> None:
    named = [("bundle", name) for name in bundles_of(template)]
    for field, name in (*named, *(("model", name) for name in models_of(template))):
        try:
            parse_source(name)
        except InvalidInput as error:
            raise InvalidInput(error.message, field=field) from None


def fill(text: str, values: Mapping[str, str], models: Mapping[str, str]) -> str:
    def put(match: re.Match[str]) -> str:
        name, argument = match.groups()
        return models[argument] if name == "model" else values[name]

    return _PLACEHOLDER.sub(put, text)


def _placeholders(template: ServiceTemplate) -> Iterator[tuple[str, str]]:
    for text in (*template.command, *template.env.values()):
        for match in _PLACEHOLDER.finditer(text):
            yield match.group(1), match.group(2) or ""
