"""NAME_PATTERN, the naming policy: from the setting to the outcome."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import Any, Final

import pytest

from function.bootstrap import Components
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, RenameEvent
from function.domain.name_pattern import MAX_PATTERN, NamePatternError, compile_name_pattern
from function.domain.ports import Known
from function.settings import SettingsError, load
from tests.deadlines import within
from tests.fakes.domain import parser, policy
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.world import World

PATH: Final = "/data/endpoint_service_name"
POLICY: Final = compile_name_pattern("(prod|test)-[a-z]+", 16)


def judged(pattern: re.Pattern[str] = POLICY, **data: Any) -> ParsedEvent:
    text = json.dumps(rename_event(data=rename_data(**data)))
    return parser(name_pattern=pattern).parse(text, transport(), within(60.0))


def paths_and_messages(event: ParsedEvent) -> list[tuple[str, str]]:
    assert isinstance(event, InvalidEvent), event
    return [(path, message) for path, message in event.violations]


@pytest.mark.parametrize("pattern", [POLICY, re.compile("([a-z]+-[a-z]+)?")])
@pytest.mark.parametrize("name", ["prod-orders", "test-a", ""])
def test_name_is_valid_if_the_pattern_matches_all_of_it(pattern: re.Pattern[str], name: str) -> None:
    event = judged(pattern, endpoint_service_name=name, expected_name="OLD")

    assert isinstance(event, RenameEvent) is bool(name or pattern is not POLICY)


@pytest.mark.parametrize("name", ["orders", "prod-", "xprod-orders", "prod-orders-1", ""])
def test_name_that_does_not_match_is_one_violation_that_names_the_policy(name: str) -> None:
    found = paths_and_messages(judged(endpoint_service_name=name))

    assert found == [(PATH, "must match the naming policy: (prod|test)-[a-z]+")]


@pytest.mark.parametrize(
    ("name", "message"),
    [("a b", "must hold letters, digits, _ and - only"), ("a" * 17, "must have at most 16 characters")],
)
def test_name_that_breaks_another_rule_is_not_matched(name: str, message: str) -> None:
    assert paths_and_messages(judged(endpoint_service_name=name)) == [(PATH, message)]


def test_name_that_does_not_match_is_reported_with_all_other_violations() -> None:
    found = paths_and_messages(judged(endpoint_service_name="orders", region="nowhere-1"))

    assert [path for path, _ in found] == [PATH, "/data/region"]


def refused(world: World) -> InvalidEvent:
    event = replace(world.event(), received="2026-11-24T03:00:00.000Z")
    judge = policy(name_pattern=POLICY, now=world.clock.now)
    invalid = judge.judge(event, within(60.0))
    assert isinstance(invalid, InvalidEvent)
    return invalid


def test_outcome_of_a_name_that_does_not_match_is_remembered(world: World) -> None:
    """The pattern may be another one at the next delivery."""
    outcome = world.settle(refused(world))

    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert outcome.failure.code == "Rename.InvalidEvent"
    assert world.ledger.outcomes == [outcome]
    assert world.services.calls == []


def test_event_that_was_settled_before_the_pattern_was_set_keeps_its_outcome(world: World) -> None:
    before = world.settle(world.event())
    assert isinstance(before, Outcome)
    world.ledger.at_remember.append(Known(before, None))

    assert world.settle(refused(world)) == before


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        *[(pattern, "is no regular expression") for pattern in ("(orders", "[z-a]", "a{99999999999999}", "(" * 300)],
        *[
            (pattern, "has a back-reference, which is not supported")
            for pattern in (r"([a-z])\1", r"(?P<a>x)(?P=a)", r"(x)?(?(1)y|z)")
        ],
        *[
            (pattern, "has a look-around, which is not supported")
            for pattern in ("(?=a).*", "(?!prod).*", ".*(?<=a)", ".*(?<!a)", "((?!a)b)*")
        ],
        *[
            (pattern, "has a repetition inside a repeated group: a match might take too long")
            for pattern in ("(a+)+", "(a*)*b", "(a?a)*b", "(?:-[a-z]+){2}", "((?:x(a+?)))*?", "((?>a+))+")
        ],
        *[
            (pattern, "has alternatives inside a repeated group: a match might take too long")
            for pattern in ("(a|bc)*", "(a|a)*b")
        ],
        *[
            (pattern, "has too many repetitions or alternatives for names of up to 16 characters")
            for pattern in ("a*" * 16 + "b", "a?" * 30)
        ],
        ("a" * (MAX_PATTERN + 1), "has more than 512 characters"),
    ],
)
def test_unsupported_pattern_is_a_settings_error_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Components(load(ENVIRONMENT | {"NAME_PATTERN": pattern}))

    assert str(caught.value) == f"NAME_PATTERN is malformed: it {reason}"


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("[a-z][a-z0-9-]*", "orders-2"),
        ("(?i)PROD-[a-z]*", "prod-orders"),
        ("^(prod|test)-[a-z]+-[0-9]{2}$", "prod-orders-01"),
        ("([a-z0-9]+(-[a-z0-9])?)?", "orders-2"),
        ("(ab){1,3}|x", "abab"),
        ("[a-z]++-[0-9]", "ab-1"),
    ],
)
def test_supported_pattern_is_accepted(pattern: str, name: str) -> None:
    Components(load(ENVIRONMENT | {"NAME_PATTERN": pattern}))
    compiled = compile_name_pattern(pattern, 16)

    assert compiled.fullmatch(name)
    assert not compiled.fullmatch(f"{name}!")


@pytest.mark.parametrize("length", [16, 64, 128, 255])
def test_slowest_supported_pattern_is_matched_within_seconds(length: int) -> None:
    for repetitions in range(20, 0, -1):
        try:
            pattern = compile_name_pattern("[a-z]*" * repetitions + "!", length)
        except NamePatternError:
            continue
        break
    began = time.process_time()
    assert not pattern.fullmatch("a" * length)
    assert time.process_time() - began < 5


def test_name_pattern_setting_is_applied_by_the_wired_function() -> None:
    components = Components(load(ENVIRONMENT | {"NAME_PATTERN": "prod-.*"}))
    event = parser().parse(json.dumps(rename_event()), transport(), within(60.0))

    judged_event = components.sqs.policy.judge(event, within(60.0))

    assert (PATH, "must match the naming policy: prod-.*") in paths_and_messages(judged_event)
