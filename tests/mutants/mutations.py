"""Mutants of a Python source: the source with one small fault in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

_OPPOSITES: dict[type[ast.AST], Any] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
}


class Mutant(NamedTuple):
    """One fault: its first and last line, the text before and after, and the whole mutated source."""

    lines: tuple[int, int]
    before: str
    after: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, except of docstrings, messages and annotations."""
    found = []
    for node, replacement in _Faults().of(ast.parse(source)):
        before = ast.get_source_segment(source, node)
        assert before is not None
        assert node.end_lineno is not None
        after = f"({replacement})" if isinstance(node, ast.expr) else replacement
        mutated = _replaced(source, node, after)
        ast.parse(mutated)
        found.append(Mutant((node.lineno, node.end_lineno), before, after, mutated))
    return found


def _replaced(source: str, node: ast.expr | ast.stmt, text: str) -> str:
    """The columns of a node count UTF-8 bytes."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    first, last = node.lineno - 1, node.end_lineno - 1
    start, end = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    return b"".join([*lines[:first], start, text.encode(), end, *lines[last + 1 :]]).decode()


class _Faults:
    def of(self, node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        if isinstance(node, ast.expr | ast.stmt):
            for replacement in self._replacements(node):
                yield node, replacement
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                # The text of an f-string has no source of its own.
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                    yield from self.of(child)

    def _replacements(self, node: ast.expr | ast.stmt) -> Iterator[str]:
        return _of_expression(node) if isinstance(node, ast.expr) else _of_statement(node)


def _of_expression(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _OPPOSITES:
            yield ast.unparse(ast.Compare(node.left, [_OPPOSITES[type(operator)]()], node.comparators))
        case ast.BoolOp():
            yield ast.unparse(ast.BoolOp(_OPPOSITES[type(node.op)](), node.values))
        case ast.BinOp() if type(node.op) in _OPPOSITES:
            yield ast.unparse(ast.BinOp(node.left, _OPPOSITES[type(node.op)](), node.right))
        case ast.UnaryOp(op=ast.Not()):
            yield ast.unparse(node.operand)
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() | float() as value):
            yield str(value + 1)
        case ast.IfExp():
            yield ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse))


def _of_statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Call()):
            yield "None"
        case ast.Raise():
            yield "pass"
        case ast.Return(value=ast.expr()) if not _is_none(node.value):
            yield "return None"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
