"""The naming policy: NAME_PATTERN, from the setting to the outcome."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import Any, Final

import pytest

from function.bootstrap import Components
from function.domain.model import InvalidEvent, Outcome, RenameEvent
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


def judged(pattern: re.Pattern[str] = POLICY, **data: Any) -> RenameEvent | InvalidEvent:
    text = json.dumps(rename_event(data=rename_data(**data)))
    return parser(name_pattern=pattern).parse(text, transport(), within(60.0))


def paths_and_messages(event: RenameEvent | InvalidEvent) -> list[tuple[str, str]]:
    assert isinstance(event, InvalidEvent), event
    return [(path, message) for path, message in event.violations]


# ---- What it refuses


@pytest.mark.parametrize("name", ["prod-orders", "test-a"])
def test_name_that_matches_as_a_whole_is_valid(name: str) -> None:
    assert isinstance(judged(endpoint_service_name=name), RenameEvent)


@pytest.mark.parametrize("name", ["orders", "prod-", "xprod-orders", "prod-orders-1", ""])
def test_other_name_is_one_violation_that_tells_the_policy(name: str) -> None:
    found = paths_and_messages(judged(endpoint_service_name=name))

    assert found == [(PATH, "must match the naming policy: (prod|test)-[a-z]+")]


def test_empty_name_is_valid_where_the_pattern_matches_it() -> None:
    assert isinstance(judged(re.compile("([a-z]+)?"), endpoint_service_name=""), RenameEvent)


def test_expected_name_need_not_match() -> None:
    assert isinstance(judged(endpoint_service_name="prod-orders", expected_name="OLD"), RenameEvent)


def test_name_that_breaks_the_schema_is_not_held_against_the_pattern_as_well() -> None:
    assert [path for path, _ in paths_and_messages(judged(endpoint_service_name="a b"))] == [PATH]


def test_name_that_is_too_long_is_not_matched() -> None:
    found = paths_and_messages(judged(endpoint_service_name="a" * 17))

    assert found == [(PATH, "must have at most 16 characters")]


def test_refusal_comes_with_all_other_violations() -> None:
    found = paths_and_messages(judged(endpoint_service_name="orders", region="nowhere-1"))

    assert [path for path, _ in found] == [PATH, "/data/region"]


# ---- It is remembered


def refused(world: World) -> InvalidEvent:
    event = replace(world.event(), received="2026-11-24T03:00:00.000Z")
    judge = policy(name_pattern=POLICY, now=world.clock.now)
    invalid = judge.judge(event, within(60.0))
    assert isinstance(invalid, InvalidEvent)
    return invalid


def test_refusal_is_remembered_for_the_pattern_may_be_another_one_tomorrow(world: World) -> None:
    outcome = world.settle(refused(world))

    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert outcome.failure.code == "Rename.InvalidEvent"
    assert world.ledger.outcomes == [outcome]
    assert world.services.calls == []


def test_event_that_was_settled_before_the_pattern_keeps_its_outcome(world: World) -> None:
    before = world.settle(world.event())
    assert isinstance(before, Outcome)
    world.ledger.at_remember.append(Known(before, None))

    assert world.settle(refused(world)) == before


# ---- What the setting may be


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(orders", "is no regular expression"),
        ("[z-a]", "is no regular expression"),
        ("a{99999999999999}", "is no regular expression"),
        ("(" * 300, "is no regular expression"),
        (r"([a-z])\1", "has a back-reference, which is not supported"),
        (r"(?P<a>x)(?P=a)", "has a back-reference, which is not supported"),
        (r"(x)?(?(1)y|z)", "has a back-reference, which is not supported"),
        ("(?=a).*", "has a look-around, which is not supported"),
        ("(?!prod).*", "has a look-around, which is not supported"),
        (".*(?<=a)", "has a look-around, which is not supported"),
        (".*(?<!a)", "has a look-around, which is not supported"),
        ("((?!a)b)*", "has a look-around, which is not supported"),
        ("(a+)+", "has a repetition inside a repeated group: a match might take too long"),
        ("(a*)*b", "has a repetition inside a repeated group: a match might take too long"),
        ("(a?a)*b", "has a repetition inside a repeated group: a match might take too long"),
        ("(?:-[a-z]+){2}", "has a repetition inside a repeated group: a match might take too long"),
        ("((?:x(a+?)))*?", "has a repetition inside a repeated group: a match might take too long"),
        ("((?>a+))+", "has a repetition inside a repeated group: a match might take too long"),
        ("(a|bc)*", "has alternatives inside a repeated group: a match might take too long"),
        ("(a|a)*b", "has alternatives inside a repeated group: a match might take too long"),
        ("a*" * 16 + "b", "has too many repetitions or alternatives for names of up to 16 characters"),
        ("a?" * 30, "has too many repetitions or alternatives for names of up to 16 characters"),
        ("a" * (MAX_PATTERN + 1), "has more than 512 characters"),
    ],
)
def test_pattern_that_cannot_be_used_is_a_settings_error_with_the_reason(pattern: str, reason: str) -> None:
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
def test_other_patterns_can_be_used(pattern: str, name: str) -> None:
    Components(load(ENVIRONMENT | {"NAME_PATTERN": pattern}))
    taken = compile_name_pattern(pattern, 16)

    assert taken.fullmatch(name)
    assert not taken.fullmatch(f"{name}!")


@pytest.mark.parametrize("length", [16, 64, 128, 255])
def test_the_slowest_pattern_that_is_taken_is_matched_within_seconds(length: int) -> None:
    for repetitions in range(20, 0, -1):
        try:
            pattern = compile_name_pattern("[a-z]*" * repetitions + "!", length)
        except NamePatternError:
            continue
        break
    began = time.process_time()
    assert not pattern.fullmatch("a" * length)
    assert time.process_time() - began < 5


def test_wired_function_refuses_a_name_by_the_setting() -> None:
    components = Components(load(ENVIRONMENT | {"NAME_PATTERN": "prod-.*"}))
    event = parser().parse(json.dumps(rename_event()), transport(), within(60.0))

    assert (PATH, "must match the naming policy: prod-.*") in paths_and_messages(
        components._policy.judge(event, within(60.0))
    )
