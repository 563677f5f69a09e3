"""The deployed function: execution environments, each with the version of code and settings that it started with.

An environment runs one invocation at a time, has a clock of its own, and keeps the function's state between
invocations: the outage breaker and the secret that was read last. Powertools keeps a breaker's counters and the owner
of a probe in module attributes, since a process is one environment; here each environment sets its own when it runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar, Final, cast
from unittest.mock import patch

from aws_lambda_powertools.utilities.circuit_breaker import CircuitState, CircuitTransition, base
from aws_lambda_powertools.utilities.circuit_breaker.persistence import base as persistence
from aws_lambda_powertools.utilities.circuit_breaker.persistence import dynamodb
from botocore.exceptions import BotoCoreError, ClientError

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.circuit_breaker import FAILURE_THRESHOLD, OutageBreaker
from function.domain.deadline import Deadline
from function.domain.dry_run import DryRun
from function.domain.envelopes import Attributes
from function.domain.event_parser import EventParser
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import InvalidEvent, ParsedEvent, RenameEvent, Target
from function.domain.policy import Policy
from function.domain.ports import Claim, Known, ReadPurpose, Reply, Reused, Superseded
from function.domain.rename_service import RenameService, Result, Unsettled
from function.domain.service_calls import ServiceCalls
from function.telemetry import Telemetry
from function.triggers.dead_letters import DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from function.workers import Workers
from tests.fakes.identifiers import REGION
from tests.faults.clouds import Bus, Huawei, Secret, SimulatedClouds, running
from tests.faults.invariants import CloudEvent
from tests.faults.ledger_v1 import first_version
from tests.faults.world import DefectError, World

TABLE: Final = "ledger"


@dataclass(frozen=True)
class Build:
    """The classes that the function and its clouds are built of."""

    parser: type[EventParser] = EventParser
    policy: type[Policy] = Policy
    service_calls: type[ServiceCalls] = ServiceCalls
    rename_service: type[RenameService] = RenameService
    ledger: type[DynamoDbLedger] = DynamoDbLedger
    breaker: type[OutageBreaker] = OutageBreaker
    sqs: type[SqsTrigger] = SqsTrigger
    http: type[HttpTrigger] = HttpTrigger
    dead_letters: type[DeadLetterTrigger] = DeadLetterTrigger
    bus: type[Bus] = Bus
    huawei: type[Huawei] = Huawei


SOUND: Final = Build()


@dataclass(frozen=True)
class Version:
    """Of the function's code and settings.

    Attributes:
        is_first: the ledger writes what the first version wrote.
    """

    is_first: bool = False
    name_max_length: int = 16
    read_previous_name: bool = False
    allowed_projects: frozenset[str] = frozenset()


class Function:
    """One version, wired as function.app wires it."""

    def __init__(self, build: Build, version: Version, clouds: SimulatedClouds, max_receives: int) -> None:
        self.version = version
        self._world = world = clouds.world

        def now() -> datetime:
            return datetime.fromtimestamp(running(world).clock(), UTC)

        def wait(_: float) -> None:
            """Not the ledger's own random back-off, since a run depends on its seed alone."""
            running(world).pause(world.random.uniform(0, 0.1))

        ledger_type = first_version(build.ledger) if version.is_first else build.ledger
        self.ledger = ledger_type(cast("Any", clouds.ledger), TABLE, now=lambda: running(world).clock(), sleep=wait)
        ledger: Any = _TracedLedger(self.ledger, world) if world.tracing else self.ledger
        services = _ServicesOfRunningEnvironment(world)
        policy = build.policy(
            region=REGION,
            name_max_length=version.name_max_length,
            projects=version.allowed_projects,
            regions=(),
            default_project=clouds.huawei.default_project,
            now=now,
        )
        calls = build.service_calls(
            services, sleep=lambda seconds: running(world).pause(seconds), uniform=world.random.uniform
        )
        rename_service = build.rename_service(
            calls, ledger, clouds.bus, policy, read_previous_name=version.read_previous_name, now=now
        )
        common = (
            cast("EventParser", _ObservedParser(build.parser(), world)),
            policy,
            rename_service,
            cast("Telemetry", _Telemetry(clouds)),
        )
        workers = cast("Workers", _SequentialWorkers())
        self.sqs = build.sqs(
            *common, queue=clouds.queue, workers=workers, max_receives=max_receives, uniform=world.random.uniform
        )
        self.dead_letters = build.dead_letters(*common, queue=clouds.dead_letter_queue, workers=workers)
        self.http = build.http(*common, queue=clouds.hand_over, workers=workers)


@dataclass(eq=False)
class Environment:
    """An execution environment.

    Attributes:
        skew_seconds: of its clock.
        unavailable_answers: in a row, to calls that were made, since the breaker's last transition.
        is_answered: the last call was made, and its response was not that of an outage.
    """

    function: Function
    services: OutageBreaker
    skew_seconds: float
    is_cold: bool = True
    secret: Secret | None = None
    secret_good_until: float = 0.0
    refused_until: dict[object, float] = field(default_factory=dict)
    unavailable_answers: int = 0
    is_answered: bool = False
    _failures: dict[str, int] = field(default_factory=dict)
    _successes: dict[str, int] = field(default_factory=dict)
    _observed: dict[str, CircuitState] = field(default_factory=dict)
    _owner: SimpleNamespace = field(default_factory=SimpleNamespace)

    def enter(self) -> None:
        """Make this the environment that runs."""
        base._LOCAL_FAILURES = self._failures
        base._LOCAL_SUCCESSES = self._successes
        base._LAST_OBSERVED_STATE = self._observed
        base._PROBE_OWNER = cast("Any", self._owner)


@dataclass(eq=False)
class Fleet:
    """The environments of one function: a warm one is reused, a new one has one of the deployed versions."""

    build: Build
    clouds: SimulatedClouds
    max_receives: int
    versions: tuple[Version, ...] = (Version(),)
    _functions: dict[Version, Function] = field(default_factory=dict)
    _idle: dict[str, list[Environment]] = field(default_factory=dict)
    _environments: int = 0

    def deploy(self, *versions: Version) -> None:
        """Each of the versions gets a part of the traffic from now on. Running invocations end normally."""
        self.versions = versions
        self._idle.clear()

    def take(self, name: str) -> Environment:
        """An environment for one invocation of the function with this name."""
        idle = self._idle.get(name)
        if idle and self.clouds.world.random.random() < 0.8:
            return idle.pop(self.clouds.world.random.randrange(len(idle)))
        return self._new()

    def give_back(self, name: str, environment: Environment) -> None:
        if environment.function.version in self.versions:
            self._idle.setdefault(name, []).append(environment)

    def _new(self) -> Environment:
        world, clouds = self.clouds.world, self.clouds
        version = world.random.choice(self.versions)
        function = self._functions.get(version)
        if function is None:
            function = self._functions[version] = Function(self.build, version, clouds, self.max_receives)

        def transitioned(transition: CircuitTransition) -> None:
            _check_transition(world, environment, transition)

        def failed(error: Exception) -> None:
            assert isinstance(error, (BotoCoreError, ClientError)), error

        breaker = self.build.breaker(
            clouds.huawei,
            function.ledger.outage_is_recorded,
            cast("Any", clouds.ledger),
            table=TABLE,
            item=breaker_item,
            on_transition=transitioned,
            on_error=failed,
            now=lambda: running(world).clock(),
        )
        skew = world.random.uniform(-0.5, 0.5) * world.profile.skew_seconds
        environment = Environment(function, breaker, skew)
        self._environments += 1
        environment._owner.pid, environment._owner.id = os.getpid(), f"owner-{self._environments}"
        return environment


def _check_transition(world: World, environment: Environment, transition: CircuitTransition) -> None:
    world.note("breaker: %s to %s", transition.from_state.value, transition.to_state.value)
    match transition.from_state, transition.to_state:
        case CircuitState.CLOSED, CircuitState.OPEN:
            if environment.unavailable_answers < FAILURE_THRESHOLD:
                world.mark_broken(7, f"the breaker opens after {environment.unavailable_answers} unavailable answers")
        case CircuitState.HALF_OPEN, CircuitState.OPEN:
            if environment.unavailable_answers == 0:
                world.mark_broken(7, "the breaker opens again without an unavailable answer")
        case CircuitState.HALF_OPEN, CircuitState.CLOSED:
            if not environment.is_answered:
                world.mark_broken(7, "the breaker closes without an answer")
        case _:
            return
    environment.unavailable_answers = 0


@contextmanager
def powertools_on_virtual_time(world: World) -> Iterator[None]:
    """Powertools uses the clock of the running invocation and does not log, until the end of the `with` block."""

    class _Clock:
        @staticmethod
        def now() -> Any:
            return SimpleNamespace(timestamp=running(world).clock)

    clock = SimpleNamespace(datetime=_Clock)
    loggers = [logging.getLogger(module.__name__) for module in (base, persistence)]
    with (
        patch.multiple(base, dt=clock, _LOCAL_FAILURES={}, _LOCAL_SUCCESSES={}, _LAST_OBSERVED_STATE={}),
        patch.object(base, "_PROBE_OWNER", None),
        patch.object(persistence, "dt", clock),
        patch.object(dynamodb, "dt", clock),
    ):
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        finally:
            for logger in loggers:
                logger.disabled = False


@dataclass(eq=False)
class _ServicesOfRunningEnvironment:
    """The endpoint services, behind the breaker of the environment that runs."""

    world: World

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        return self._services.rename(target, name, deadline)

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        return self._services.read(target, deadline, purpose)

    @property
    def _services(self) -> OutageBreaker:
        return running(self.world).environment.services


class _SequentialWorkers:
    """Runs tasks one after another: the order of threads would not be reproducible."""

    def run(self, tasks: Sequence[Callable[[], object]], deadline: Deadline) -> list[object]:
        return [task() for task in tasks]


# ---- Observers within the function


class _ObservedParser:
    """The parser. Sets the event that the invocation handles, and injects unexpected exceptions."""

    def __init__(self, parser: EventParser, world: World) -> None:
        self._parser = parser
        self._world = world
        parser._validator = _CachingValidator(parser._validator)  # type: ignore[assignment]

    def parse(self, text: str, attributes: Attributes, **options: Any) -> ParsedEvent:
        event = self._parser.parse(text, attributes, **options)
        running(self._world).event = None if isinstance(event, InvalidEvent) else event
        if self._world.chance(self._world.profile.defect):
            raise DefectError
        return event


class _CachingValidator:
    """The schema's validator, which would take a third of the time, with a cache for all runs.

    Its key is the names of the attributes and the data, since a plan sends no invalid attribute.
    """

    _errors: ClassVar[dict[object, list[Any]]] = {}

    def __init__(self, validator: Any) -> None:
        self._validator = validator
        self._max_length = validator.schema["$defs"]["data"]["properties"]["endpoint_service_name"]["maxLength"]

    def iter_errors(self, event: CloudEvent) -> list[Any]:
        key = (self._max_length, *event, *event["data"].items())
        if key not in self._errors:
            self._errors[key] = list(self._validator.iter_errors(event))
        return self._errors[key]


@dataclass(eq=False)
class _Telemetry:
    """Checks the result of each event for what is not visible outside of the function."""

    clouds: SimulatedClouds

    def handled(self, event: ParsedEvent, result: Result, trigger: str, **keys: object) -> None:
        if isinstance(result, Unsettled) and result.cause is not None:
            raise result.cause
        if not isinstance(event, RenameEvent):
            return
        invocation = running(self.clouds.world)
        group = invocation.groups.get(keys.get("message_id"))
        was_refused = isinstance(result, Unsettled) and result.failure.kind is Kind.ACCESS
        if self.clouds.huawei.is_refused(event):
            invocation.refused_groups.add(group)
        elif was_refused and group not in invocation.refused_groups:
            label = self.clouds.invariants.find(event.cloud_event).label
            self.clouds.world.mark_broken(8, f"{label} returns for a refusal of another event")

    def dry_run(self, dry_run: DryRun, trigger: str, **keys: object) -> None:
        if dry_run.cause is not None:
            raise dry_run.cause

    def unexpected(self, error: BaseException | None, **keys: object) -> None:
        self.clouds.world.note("unexpected: %r", error)
        assert isinstance(error, DefectError), error


@dataclass(eq=False)
class _TracedLedger:
    """The ledger, with each of its results in the trace."""

    ledger: DynamoDbLedger
    world: World

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def traced(*args: Any, **kwargs: Any) -> Any:
            answer: object = "no result"
            try:
                answer = getattr(self.ledger, method)(*args, **kwargs)
            except RenameFailedError as error:
                answer = error.failure.code
                raise
            finally:
                self.world.note("ledger, %s: %s", method, _brief(answer))
            return answer

        return traced


def _brief(answer: object) -> str:
    match answer:
        case None:
            return "done"
        case Claim(_, cycle):
            return f"granted, redrive cycle {cycle.number}"
        case Known(outcome, next_cycle):
            return f"known, {outcome.failure.code if outcome.failure else 'renamed'}, {next_cycle or 'settled'}"
        case Superseded(by=by):
            return f"superseded by {by.id} of {by.source}"
        case _:
            return type(answer).__name__ if isinstance(answer, Reused) else str(answer)
