"""Holds KEDA's objects against its published schemas.

    python -m tests.keda FOLDER

FOLDER is a clone of the repository kedacore/keda; the command writes `tests/data/keda_schemas.json` anew from it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

KEPT = Path(__file__).with_name("data") / "keda_schemas.json"
_KINDS = ("scaledobjects", "triggerauthentications")
_ORIGIN = "https://github.com/kedacore/keda, Apache License 2.0, Copyright KEDA Authors; descriptions left out"


def problems_of(document: dict[str, Any]) -> list[str]:
    """What is wrong with one of KEDA's objects, a line each; Kubernetes itself would drop what it does not know."""
    kept = json.loads(KEPT.read_text())
    validator = jsonschema.Draft202012Validator(kept["schemas"][document["kind"]])
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    for trigger in document["spec"].get("triggers", []):
        known = kept["metadata"].get(trigger["type"], ())
        found += [f"{trigger['type']}: {name} is unknown" for name in trigger["metadata"] if name not in known]
    return found


def _closed(schema: Any) -> Any:
    """Without descriptions, and with nothing allowed but what is declared."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _closed(each) for name, each in schema.items() if name != "description" or isinstance(each, dict)}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def main(clone: Path) -> int:
    schemas = {}
    for plural in _KINDS:
        definition = yaml.safe_load((clone / "config" / "crd" / "bases" / f"keda.sh_{plural}.yaml").read_text())
        (version,) = definition["spec"]["versions"]
        schema = _closed(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {
            "apiVersion": {"const": f"keda.sh/{version['name']}"},
            "metadata": {"type": "object", "required": ["name"]},
        }
        schemas[definition["spec"]["names"]["kind"]] = schema
    scaler = (clone / "pkg" / "scalers" / "azure_servicebus_scaler.go").read_text()
    metadata = {"azure-servicebus": sorted(set(re.findall(r'keda:"name=(\w+)', scaler)))}
    text = json.dumps({"origin": _ORIGIN, "metadata": metadata, "schemas": schemas}, indent=1)
    KEPT.write_text(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
