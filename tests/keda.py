"""Holds KEDA's objects against its published schemas.

    python -m tests.keda FOLDER deploy/kubernetes

FOLDER is a clone of the repository kedacore/keda. `tests/data/keda_schemas.json` has the facts that the files need,
for the test. After a change that needs more, the command with a clone writes that table anew.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests import facts
from tests.facts import Fact, Source

KEPT = Path(__file__).with_name("data") / "keda_schemas.json"
_WORDS = {"string": "text", "integer": "integer", "boolean": "boolean", "object": "object", "array": "array"}
_LIMITS = {
    "minLength": "least",
    "minItems": "least",
    "minimum": "least",
    "maxLength": "most",
    "maxItems": "most",
    "maximum": "most",
    "pattern": "pattern",
}
_METADATA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def problems_of(document: dict[str, Any]) -> list[str]:
    """What is wrong with one of KEDA's objects, a line each; Kubernetes itself would drop what it does not know."""
    tables, kind = facts.read(KEPT), document["kind"]
    found = tables[kind].problems_of(document, kind)
    for trigger in document["spec"].get("triggers", []):
        name = trigger["type"]
        if name in tables:
            found += tables[name].problems_of(trigger["metadata"], name)
        else:
            found.append(f"{name}: expected a type of trigger that {KEPT.name} has, found none; see tests/keda.py")
    return found


def _source(schema: dict[str, Any], *, is_required: bool = False) -> Source:
    types = [schema["type"]] if "type" in schema else [each["type"] for each in schema["anyOf"]]
    limits = {ours: schema[theirs] for theirs, ours in _LIMITS.items() if theirs in schema}
    allowed = tuple(schema.get("enum", ()))
    words = " or ".join(_WORDS[each] for each in types)
    return Source(Fact(words, is_required, allowed=allowed, **limits), lambda: _inner(schema))


def _inner(schema: dict[str, Any]) -> dict[str, Source]:
    required = schema.get("required", [])
    inner = {name: _source(each, is_required=name in required) for name, each in schema.get("properties", {}).items()}
    if "items" in schema:
        inner["[]"] = _source(schema["items"])
    if "additionalProperties" in schema:
        inner["*"] = _source(schema["additionalProperties"])
    return inner


def _kind(file: Path) -> tuple[str, Source]:
    """Of the definition of a resource: its kind, and what an object of it may have."""
    definition = yaml.safe_load(file.read_text())["spec"]
    (version,) = definition["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    api = {"type": "string", "enum": [f"{definition['group']}/{version['name']}"]}
    schema["properties"] |= {"apiVersion": api, "metadata": _METADATA}
    schema["required"] = ["apiVersion", "kind", "metadata", *schema["required"]]
    return definition["names"]["kind"], _source(schema)


def _trigger(file: Path) -> Source:
    """What a scaler reads of the metadata of its trigger, by the tags in its code: always texts."""
    inner = {}
    for tag in re.findall(r'keda:"([^"]+)"', file.read_text()):
        words = [word.strip() for word in tag.split(",")]
        named = dict(word.split("=", 1) for word in words if "=" in word)
        allowed = tuple(named["enum"].split(";")) if "enum" in named else ()
        order = named["order"].split(";")
        if "triggerMetadata" in order:
            is_required = order == ["triggerMetadata"] and "optional" not in words and "default" not in named
            inner[named["name"]] = Source(Fact("text", is_required, allowed=allowed))
        if "resolvedEnv" in order:
            inner[f"{named['name']}FromEnv"] = Source(Fact("text"))
    return Source(Fact("object"), lambda: inner)


def main(clone: Path, manifests: Path) -> int:
    documents = [each for file in sorted(manifests.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]
    values: dict[str, list[Any]] = defaultdict(list)
    for document in documents:
        values[document["kind"]].append(document)
    kinds = dict(_kind(file) for file in _definitions(clone, values))
    # Kubernetes itself checks what else metadata has.
    rows = {name: facts.rows_of(source, values[name]) | {"metadata/*": "any"} for name, source in kinds.items()}
    scaler = clone / "pkg" / "scalers" / "azure_servicebus_scaler.go"
    rows["azure-servicebus"] = facts.rows_of(_trigger(scaler), ())
    facts.write(KEPT, "github.com/kedacore/keda", rows)
    return 0


def _definitions(clone: Path, kinds: Iterable[str]) -> list[Path]:
    files = (clone / "config" / "crd" / "bases" / f"keda.sh_{kind.lower()}s.yaml" for kind in kinds)
    return [file for file in files if file.is_file()]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
