"""Mutants of small sources have one fault each, at its place."""

import ast

import pytest

from tests.mutants.mutations import mutants


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["(a <= b)"]),
        ("a is None", ["(a is not None)"]),
        ("a and b", ["(a or b)"]),
        ("not a", ["(a)"]),
        ("a + 2", ["(a - 2)", "a + (3)"]),
        ("a = True", ["a = (False)"]),
        ("f(a)", ["None"]),
        ("if a:\n    raise ValueError", ["if a:\n    pass"]),
        ("def f():\n    return 'a'", ["def f():\n    return None"]),
        ("for a in b:\n    continue", ["for a in b:\n    break"]),
        ("a if b else c", ["(a if not b else c)"]),
        ("名 = '前' * n", ["名 = ('前' + n)"]),
        ("a = (\n    b\n    == c\n)", ["a = (\n    (b != c)\n)"]),
    ],
)
def test_source_has_one_mutant_for_each_possible_fault(source: str, expected: list[str]) -> None:
    assert [mutant.source for mutant in mutants(source)] == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring of 2 lines."""',
        "a: Literal[1]",
        "def f(a: Literal[1]) -> Literal[2]: ...",
        "return_ = f'{a + 1}'",
    ],
)
def test_docstring_annotation_or_message_has_no_mutant(source: str) -> None:
    ast.parse(source)

    assert mutants(source) == []


def test_mutant_of_two_lines_has_their_numbers_and_text() -> None:
    [mutant] = mutants("a = 1\n".replace("1", "b ==\\\n c"))

    assert (mutant.lines, mutant.before, mutant.after) == ((1, 2), "b ==\\\n c", "(b != c)")
