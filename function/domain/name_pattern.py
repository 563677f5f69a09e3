"""Compiles ``NAME_PATTERN``, and rejects patterns that may take too long to match."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

# Python has no public parser of patterns, and not all type checkers know these modules.
ops: Final = vars(re)["_constants"]
parser: Final = vars(re)["_parser"]

MAX_PATTERN: Final = 512
# Upper limit of the steps of a match, which then takes less than a second.
MAX_STEPS: Final = 20_000_000
_UNSUPPORTED: Final = {
    ops.GROUPREF: "a back-reference",
    ops.GROUPREF_EXISTS: "a back-reference",
    ops.ASSERT: "a look-around",
    ops.ASSERT_NOT: "a look-around",
}
_REPETITIONS: Final = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)


class NamePatternError(ValueError):
    """The pattern cannot be used. The message says why, and does not repeat the pattern."""


def compile_name_pattern(text: str, max_length: int) -> re.Pattern[str]:
    """
    Args:
        text: a Python regular expression that a name must match as a whole.
        max_length: of the names to be matched, in characters.

    Raises:
        NamePatternError: it is not a regular expression, or a match may take too long.
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
    """Upper bound for the number of ways that a backtracking matcher tries.

    Choices inside a repetition are rejected, so a repetition only has a number of times to choose: k repetitions divide
    n characters in at most C(n + k, k) ways.
    """

    def __init__(self) -> None:
        self._repetitions = 0
        self._choices = 1

    def steps(self, length: int) -> int:
        return math.comb(length + self._repetitions, self._repetitions) * self._choices

    def add(self, nodes: Iterable[tuple[Any, Any]], *, is_repeated: bool) -> None:
        """
        Raises:
            NamePatternError: the pattern contains something without such a bound.
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
