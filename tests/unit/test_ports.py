"""What the engine asks of the outside is in one place: Protocols in core/ports.py, and values in core/models."""

import ast
from pathlib import Path

CORE = Path(__file__).parents[2] / "core"


def classes(path: Path) -> dict[str, bool]:
    """Whether each class of a file is a Protocol, by name."""
    tree = ast.parse(path.read_text())
    return {
        node.name: "Protocol" in {ast.unparse(base).split("[")[0] for base in node.bases}
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def test_ports_hold_protocols_only():
    found = classes(CORE / "ports.py")
    assert len(found) > 10
    assert [name for name, is_protocol in found.items() if not is_protocol] == []


def test_protocols_are_nowhere_else_in_core():
    elsewhere = [path for path in sorted(CORE.rglob("*.py")) if path != CORE / "ports.py"]
    assert [f"{path.name}: {name}" for path in elsewhere for name, is_one in classes(path).items() if is_one] == []
