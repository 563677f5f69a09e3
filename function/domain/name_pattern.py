"""The setting for a pattern of names, checked so that no name takes long to match."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

# There is no public parser of patterns, and only some type checkers know these.
ops: Final = vars(re)["_constants"]
parser: Final = vars(re)["_parser"]

MAX_PATTERN: Final = 512
# Steps of a match, at the most: a part of a second.
MAX_STEPS: Final = 20_000_000
_UNSUPPORTED: Final = {
    ops.GROUPREF: "a back-reference",
    ops.GROUPREF_EXISTS: "a back-reference",
    ops.ASSERT: "a look-around",
    ops.ASSERT_NOT: "a look-around",
}
_REPETITIONS: Final = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)


class NamePatternError(ValueError):
    """The pattern cannot be used. The text says why, and does not repeat it."""


def compile_name_pattern(text: str, max_length: int) -> re.Pattern[str]:
    """
    Args:
        text: a regular expression of Python's that a name must match as a whole.
        max_length: of the names that will be matched, in characters.

    Raises:
        NamePatternError: it is no regular expression, or a match might take too long.
    """
    if len(text) > MAX_PATTERN:
        raise NamePatternError(f"has more than {MAX_PATTERN} characters")
    try:
        pattern = re.compile(text)
        cost = _Cost()
        cost.add(parser.parse(text), is_repeated=False)
    except (re.error, OverflowError, RecursionError):
        raise NamePatternError("is no regular expression") from None
    if cost.steps(max_length) > MAX_STEPS:
        raise NamePatternError(f"has too many repetitions or alternatives for names of up to {max_length} characters")
    return pattern


class _Cost:
    """How many ways of matching a backtracking matcher may have to try.

    Nothing inside a repetition has a choice of its own, so that each repetition chooses its number of times and nothing
    else: k repetitions divide n characters in (n + k over k) ways at the most.
    """

    def __init__(self) -> None:
        self._repetitions = 0
        self._choices = 1

    def steps(self, length: int) -> int:
        return math.comb(length + self._repetitions, self._repetitions) * self._choices

    def add(self, nodes: Iterable[tuple[Any, Any]], *, is_repeated: bool) -> None:
        """
        Raises:
            NamePatternError: it holds what has no such bound.
        """
        for operator, argument in nodes:
            if operator in _UNSUPPORTED:
                raise NamePatternError(f"has {_UNSUPPORTED[operator]}, which is not supported")
            if operator in _REPETITIONS:
                self._add_repetition(*argument, is_repeated=is_repeated)
            elif operator is ops.BRANCH:
                if is_repeated:
                    raise NamePatternError("has alternatives inside a repeated group: a match might take too long")
                self._choices *= len(argument[1])
                for alternative in argument[1]:
                    self.add(alternative, is_repeated=is_repeated)
            elif operator is ops.SUBPATTERN:
                self.add(argument[-1], is_repeated=is_repeated)
            elif operator is ops.ATOMIC_GROUP:
                self.add(argument, is_repeated=is_repeated)

    def _add_repetition(self, least: int, most: int, body: Iterable[tuple[Any, Any]], *, is_repeated: bool) -> None:
        if is_repeated:
            raise NamePatternError("has a repetition inside a repeated group: a match might take too long")
        if most - least > 1:
            self._repetitions += 1
        elif most > least:
            self._choices *= 2
        self.add(body, is_repeated=most > 1)
