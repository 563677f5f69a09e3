"""Checks events against settings and clock: names, projects, regions, time."""

import re
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from function.domain.deadline import Deadline
from function.domain.event_parser import MAX_NAME_LENGTH
from function.domain.failures import RenameFailedError, Violation
from function.domain.model import MAX_VIOLATIONS, ParsedEvent, RenameEvent, Target, parse_time

# Producers' clocks differ. An event from further in the future would supersede every other rename until that time.
MAX_CLOCK_SKEW: Final = timedelta(minutes=5)

AHEAD_OF_TIME: Final = Violation("/time", "lies more than five minutes in the future")
FORBIDDEN_PROJECT: Final = Violation("/data/project_id", "is not a project that events may name")
FORBIDDEN_REGION: Final = Violation("/data/region", "is not a region that events may name")
_NAME: Final = "/data/endpoint_service_name"


@dataclass(eq=False, repr=False, kw_only=True)
class Policy:
    """The rules that settings and clock add to the schema.

    Attributes:
        region: for events that name none.
        name_max_length: of a new name, in characters.
        name_pattern: must match a new name as a whole, even an empty name; None for any name.
        projects, regions: allowed in events, in addition to the defaults.
        default_project: the key's project, for events that name none; raises RenameFailedError if there is no key.
        now: returns a time with a time zone.
    """

    region: str
    name_max_length: int
    name_pattern: re.Pattern[str] | None = None
    projects: Container[str]
    regions: Container[str]
    default_project: Callable[[Deadline], str]
    now: Callable[[], datetime]

    def judge(self, event: ParsedEvent, deadline: Deadline) -> ParsedEvent:
        """Check an event. Returns it, or an invalid event with all its violations of the schema and of these rules.

        If its project cannot be checked now, the event passes: call ``judge_project`` before it is carried out.

        Args:
            deadline: bounds the time to fetch the key.
        """
        content = event.cloud_event if isinstance(event, RenameEvent) else event.request
        broken = () if isinstance(event, RenameEvent) else [violation.path for violation in event.violations]
        if not isinstance(content, dict) or len(broken) > MAX_VIOLATIONS:
            return event
        violations = tuple(self._violations(content, broken, deadline))
        return event.refused(*violations) if violations else event

    def judge_project(self, event: ParsedEvent, deadline: Deadline) -> ParsedEvent:
        """Check the event's project, which ``judge`` may not have been able to check.

        Raises:
            RenameFailedError: it cannot be checked now either.
        """
        if not isinstance(event, RenameEvent) or event.project_id is None:
            return event
        return event if self.allows_project(event.project_id, deadline) else event.refused(FORBIDDEN_PROJECT)

    def allows_project(self, project_id: str, deadline: Deadline) -> bool:
        """Raises RenameFailedError if the key's own project is unknown now."""
        return project_id in self.projects or project_id == self.default_project(deadline)

    def target(self, event: RenameEvent, deadline: Deadline) -> Target:
        """Raises RenameFailedError if the default project is unknown now."""
        project_id = event.project_id or self.default_project(deadline)
        return Target(event.region or self.region, project_id, event.vpc_endpoint_service_id)

    def _violations(self, event: dict[str, Any], broken: Container[str], deadline: Deadline) -> Iterator[Violation]:
        data = event.get("data")
        data = data if isinstance(data, dict) else {}
        yield from self._violations_of_name(data.get("endpoint_service_name"), broken)
        if "time" in event and "/time" not in broken and parse_time(event["time"]) > self.now() + MAX_CLOCK_SKEW:
            yield AHEAD_OF_TIME
        if "project_id" in data and "/data/project_id" not in broken:
            with suppress(RenameFailedError):
                if not self.allows_project(data["project_id"], deadline):
                    yield FORBIDDEN_PROJECT
        region = data.get("region", self.region)
        if "/data/region" not in broken and region != self.region and region not in self.regions:
            yield FORBIDDEN_REGION

    def _violations_of_name(self, name: object, broken: Container[str]) -> Iterator[Violation]:
        if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH:
            return
        if len(name) > self.name_max_length:
            # The pattern is not matched with longer names: its number of steps is limited for names of this length.
            yield Violation(_NAME, f"must have at most {self.name_max_length} characters")
        elif self.name_pattern and _NAME not in broken and not self.name_pattern.fullmatch(name):
            yield Violation(_NAME, f"must match the naming policy: {self.name_pattern.pattern}")
