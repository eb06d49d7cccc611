"""The changes: each is one that a mistake would make, in one place of a module's source."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATIONS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """`name` is what is changed, where, and into what; it does not depend on the line, so that it stays."""

    name: str
    line: int
    tree: ast.Module


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every change of a module; docstrings, annotations and decorators are left as they are."""
    tree = ast.parse(source)
    seen: dict[str, int] = {}
    for path, node in list(_code_of(tree)):
        for changed in _changes_of(node):
            mutated = copy.deepcopy(tree)
            _put(mutated, path, changed)
            owner = ".".join(_names_on(tree, path)) or "module"
            name = f"{owner}: {_shown(node)} -> {_shown(changed)}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f" ({seen[name]})"
            yield Mutant(name, node.lineno, ast.fix_missing_locations(mutated))


Path = tuple[tuple[str, int | None], ...]
LEFT = {"annotation", "returns", "decorator_list", "type_params"}


def _code_of(node: ast.AST, path: Path = ()) -> Iterator[tuple[Path, ast.expr | ast.stmt]]:
    for field, value in ast.iter_fields(node):
        if field in LEFT:
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if not isinstance(child, ast.AST) or _is_docstring(child):
                continue
            here = (*path, (field, index))
            if isinstance(child, ast.expr | ast.stmt):
                yield here, child
            yield from _code_of(child, here)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes_of(node: ast.expr | ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    yield from _changed_values(node) if isinstance(node, ast.expr) else _changed_steps(node)


def _changed_values(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in COMPARISONS:
            yield _with(node, ops=[COMPARISONS[type(operator)](), *node.ops[1:]])
        case ast.BinOp(op=operator) if type(operator) in OPERATIONS:
            yield _with(node, op=OPERATIONS[type(operator)]())
        case ast.BoolOp(op=operator):
            yield _with(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.IfExp():
            yield _with(node, body=node.orelse, orelse=node.body)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield _with(node, func=ast.Name(CALLS[name], ast.Load()))


def _changed_steps(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.If(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant) or node.value.value is not None:
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()) | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _put(tree: ast.AST, path: Path, new: ast.AST) -> None:
    for field, index in path[:-1]:
        value = getattr(tree, field)
        tree = value if index is None else value[index]
    field, index = path[-1]
    old = getattr(tree, field) if index is None else getattr(tree, field)[index]
    new = ast.copy_location(copy.deepcopy(new), old)
    if index is None:
        setattr(tree, field, new)
    else:
        getattr(tree, field)[index] = new


def _names_on(tree: ast.AST, path: Path) -> Iterator[str]:
    for field, index in path:
        value = getattr(tree, field)
        tree = value if index is None else value[index]
        if isinstance(tree, ast.FunctionDef | ast.ClassDef):
            yield tree.name


def _shown(node: ast.AST) -> str:
    """The first line of it: of a block, what decides."""
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n", 1)[0]
