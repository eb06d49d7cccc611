"""Reads Bicep files for tests: what a file declares, with literal values as Python values.

This is no compiler: it checks no type.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_bicep.language()))


@dataclass(frozen=True)
class Expression:
    """A value that only a deployment knows: its source, and the literals that it may become, if it is a choice."""

    text: str
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Resource:
    """A resource: its full type, its API version, and its body as a dictionary."""

    symbol: str
    type: str
    version: str
    is_existing: bool
    body: dict[str, Any]


@dataclass(frozen=True)
class Module:
    symbol: str
    path: str
    parameters: dict[str, Any]


@dataclass
class Template:
    """One file. `parameters` has the description of each, `required` those without a default."""

    path: Path
    errors: list[str] = field(default_factory=list)
    parameters: dict[str, str | None] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    variables: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    imports: dict[str, set[str]] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    # Names of parameters, variables and imports, with how often they are mentioned after their declaration.
    mentions: dict[str, int] = field(default_factory=dict)

    def resource(self, type_: str) -> Resource:
        (found,) = (each for each in self.resources if each.type == type_ and not each.is_existing)
        return found


def read_template(path: Path) -> Template:
    template = Template(path)
    root = _PARSER.parse(path.read_bytes()).root_node
    template.errors += [f"{path.name}:{node.start_point[0] + 1}: {_text(node)[:60]!r}" for node in _wrong(root)]
    decorators: dict[str, Any] = {}
    for node in root.named_children:
        if node.type == "decorators":
            decorators = dict(_decorators(node))
        elif node.type != "comment":
            _declare(template, node, decorators)
            decorators = {}
    declared = {
        *template.parameters,
        *template.variables,
        *(name for names in template.imports.values() for name in names),
    }
    words = [_text(node) for node in _descend(root) if node.type in {"identifier", "property_identifier"}]
    template.mentions = {name: words.count(name) - 1 for name in declared}
    return template


def _declare(template: Template, node: Node, decorators: dict[str, Any]) -> None:
    names = [_text(child) for child in node.named_children if child.type == "identifier"]
    last = node.named_children[-1] if node.named_children else node
    match node.type:
        case "parameter_declaration":
            template.parameters[names[0]] = decorators.get("description")
            if len(node.named_children) == 2:
                template.required.add(names[0])
        case "variable_declaration":
            template.variables[names[0]] = value_of(last)
        case "output_declaration":
            template.outputs[names[0]] = value_of(last)
        case "import_functionality":
            template.imports[value_of(last)] = set(names)
        case "module_declaration":
            body = value_of(_body(last))
            template.modules.append(Module(names[0], value_of(node.named_children[1]), body.get("params", {})))
        case "resource_declaration":
            template.resources += _resources(node, "")
    if "export" in decorators:
        template.exported.add(names[0] if names else _text(node.named_children[0]))


def _resources(node: Node, parent: str) -> Iterator[Resource]:
    """The resource and those that are declared within it."""
    symbol, kind, *_, last = node.named_children
    name, _, version = value_of(kind).partition("@")
    type_, version = (f"{parent.partition('@')[0]}/{name}", parent.partition("@")[2]) if parent else (name, version)
    body = _body(last)
    is_existing = any(child.type == "existing" for child in node.children)
    yield Resource(_text(symbol), type_, version, is_existing, value_of(body))
    for item in body.named_children:
        for child in item.named_children:
            if child.type == "resource_declaration":
                yield from _resources(child, f"{type_}@{version}")


def _body(node: Node) -> Node:
    """The object within loops and conditions."""
    while node.type in {"for_statement", "if_statement"}:
        node = node.named_children[-1]
    return node


def value_of(node: Node) -> Any:
    """A literal as Python knows it, an `Expression` otherwise."""
    read = _READERS.get(node.type)
    return Expression(_text(node)) if read is None else read(node)


def _object(node: Node) -> dict[str, Any]:
    pairs = (item.named_children for item in node.named_children if item.type == "object_property")
    return {_key(pair[0]): value_of(pair[1]) for pair in pairs if len(pair) == 2}


def _string(node: Node) -> Any:
    text = _text(node)
    is_literal = all(part.type != "interpolation" for part in node.named_children)
    return text[1:-1].replace("\\'", "'") if is_literal else Expression(text)


def _call(node: Node) -> Any:
    if _text(node.named_children[0]) != "union":
        return Expression(_text(node))
    return _union([value_of(child) for child in node.named_children[1].named_children])


_READERS: dict[str, Callable[[Node], Any]] = {
    "object": _object,
    "array": lambda node: [value_of(item) for item in node.named_children if item.type != "comment"],
    "for_statement": lambda node: [value_of(_body(node))],
    "if_statement": lambda node: value_of(_body(node)),
    "boolean": lambda node: _text(node) == "true",
    "number": lambda node: int(_text(node)),
    "null": lambda _: None,
    "string": _string,
    "ternary_expression": lambda node: Expression(
        _text(node), tuple(value_of(child) for child in node.named_children[1:])
    ),
    "call_expression": _call,
}


def _union(values: list[Any]) -> dict[str, Any]:
    """The keys that it may have."""
    objects = [choice for value in values for choice in getattr(value, "choices", (value,))]
    return {key: value for each in objects if isinstance(each, dict) for key, value in each.items()}


def _key(node: Node) -> str:
    return _text(node).strip("'")


def _decorators(node: Node) -> Iterator[tuple[str, Any]]:
    for call in (child for child in _descend(node) if child.type == "call_expression"):
        arguments = call.named_children[1].named_children if len(call.named_children) > 1 else []
        yield _text(call.named_children[0]), value_of(arguments[0]) if arguments else None


def _wrong(node: Node) -> Iterator[Node]:
    return (each for each in _descend(node) if each.type == "ERROR" or each.is_missing)


def _descend(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _descend(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()
