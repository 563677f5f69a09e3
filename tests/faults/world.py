"""A discrete-event simulation: virtual time, and invocations that are scheduled in it.

Each invocation is a greenlet. Whenever the function calls a collaborator or sleeps, its greenlet pauses, and the
scheduler takes what is due next: another invocation, a message that becomes visible, a rename that takes effect late.
One seed decides everything, so a seed reproduces its run.

An invocation ends by responding, by being killed at a pause, or by its time-out, as in Lambda: it never runs longer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from botocore.exceptions import ClientError
from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from function.domain.failures import RenameFailedError

if TYPE_CHECKING:
    from tests.faults.environments import Environment

START: Final = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
MAX_STEPS: Final = 100_000
# A request whose sender was killed, or no longer waits, still arrives within this time; a rename may take longer.
LATEST_ARRIVAL_SECONDS: Final = 2.0

T = TypeVar("T")


class CallFaults(NamedTuple):
    """How often a call fails, as probabilities of exclusive faults.

    Attributes:
        lost: it never arrives.
        late: it takes effect only after the caller has stopped waiting.
        unanswered: it takes effect, and the response is lost.
    """

    lost: float = 0.0
    late: float = 0.0
    unanswered: float = 0.0


NO_CALL_FAULTS: Final = CallFaults()


@dataclass(frozen=True)
class FaultProfile:
    """Which faults a run injects, and how often: a number without a unit is a probability. The default is none.

    Attributes:
        crash: of an invocation, at any of its pauses.
        slow_seconds: the maximum latency of a call in each direction.
        skew_seconds: the maximum difference between the clocks of two environments.
        conflict: of a ledger transaction, with another one.
        response_lost: the response of an invocation; its messages are received again, its HTTP caller asks again.
        defect: an unexpected exception while an event is handled.
        key_unavailable: there is no key for Huawei Cloud.
        huawei: the behaviours of Huawei Cloud, and the weight of each; see ``clouds.Huawei``.
        latest_effect_seconds: so long after the time-out of its invocation a rename may still take effect.
        key_refused_until: from then on Huawei Cloud accepts the key.
        forbidden: ids of endpoint services that the key may not rename until ``forbidden_until``; nor may it use any
            other project than its own until then.
        outage_until: until then each call meets one of the behaviours of ``outage``.
    """

    crash: float = 0.0
    slow_seconds: float = 0.1
    skew_seconds: float = 0.0
    ledger: CallFaults = NO_CALL_FAULTS
    conflict: float = 0.0
    bus: CallFaults = NO_CALL_FAULTS
    queue: CallFaults = NO_CALL_FAULTS
    response_lost: float = 0.0
    defect: float = 0.0
    key_unavailable: float = 0.0
    huawei: tuple[tuple[str, ...], tuple[float, ...]] = (("fine",), (1.0,))
    latest_effect_seconds: float = 0.0
    key_refused_until: float = 0.0
    forbidden: frozenset[str] = frozenset()
    forbidden_until: float = 0.0
    outage: tuple[str, ...] = ("unreachable",)
    outage_until: float = 0.0


class BrokenInvariant(NamedTuple):
    """The number of the invariant, and what broke it."""

    invariant: int
    text: str


class World:
    """Virtual time, randomness, and the agenda of everything that is due."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.now = START
        self.profile = FaultProfile()
        self.invocation: Invocation | None = None
        self.broken: BrokenInvariant | None = None
        self.trace: list[str] = []
        self.tracing = tracing
        self.steps = 0
        self.unfinished: dict[int, Invocation] = {}
        self._agenda: list[tuple[float, float, int, Callable[[], object]]] = []
        self._entries = 0

    def at(self, time: float, do: Callable[[], object]) -> None:
        """The order of things due at the same time is random."""
        self._entries += 1
        heapq.heappush(self._agenda, (max(time, self.now), self.random.random(), self._entries, do))

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.at(self.now + seconds, do)

    def run(self) -> None:
        """Until nothing is due any more, or an invariant is broken."""
        while self._agenda and not self.broken:
            self.now, _, _, do = heapq.heappop(self._agenda)
            do()
            self.steps += 1
            if self.steps > MAX_STEPS:
                self.mark_broken(6, "the run does not end")

    def close(self) -> None:
        """End the invocations that are still running."""
        for invocation in list(self.unfinished.values()):
            invocation.abandon()

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def latency(self) -> float:
        """Of one direction; sometimes zero, so that no other invocation runs in between."""
        draw = self.random.random()
        if draw < 0.3:
            return 0.0
        return self.random.expovariate(50) if draw < 0.8 else self.random.uniform(0, self.profile.slow_seconds)

    def mark_broken(self, invariant: int, text: str) -> None:
        if self.broken is None:
            self.broken = BrokenInvariant(invariant, text)
        self.note("INVARIANT %s IS BROKEN: %s", invariant, text)

    def note(self, text: str, *args: object) -> None:
        if self.tracing:
            who = self.invocation.name if self.invocation else ""
            time = datetime.fromtimestamp(START, UTC) + timedelta(seconds=self.now - START)
            self.trace.append(f"{time:%m-%d %H:%M:%S.%f}"[:-3] + f" {who:12} {text % args}")


class DefectError(Exception):
    """An unexpected exception. Lambda reports an error where the function does not catch it."""


class _KilledError(BaseException):
    """Ends an invocation. No code of the function catches it."""


@dataclass(eq=False)
class Invocation:
    """One invocation of the function.

    Attributes:
        environment: runs no other invocation at the same time.
        handle: the trigger.
        end: called with the response, None where the invocation was killed.
        event: being handled.
        groups: message groups, by message id.
        is_dry_run: it must change nothing.
        refused_groups: those with an event that Huawei Cloud has refused.
    """

    world: World
    name: str
    environment: Environment
    timeout: InitVar[float]
    handle: Callable[[Invocation], Any]
    end: Callable[[Any | None], object]
    event: object = None
    is_dry_run: bool = False
    groups: dict[object, str] = field(default_factory=dict)
    refused_groups: set[str | None] = field(default_factory=set)
    _pauses: int = 0
    _killed: bool = False

    def __post_init__(self, timeout: float) -> None:
        world = self.world
        self.deadline = world.now + timeout
        self._crashes_at = world.random.randint(1, 30) if world.chance(world.profile.crash) else 0
        self._greenlet = greenlet(self._run)
        self._hub = getcurrent()
        world.unfinished[id(self)] = self
        world.after(0, self._resume)

    def clock(self) -> float:
        """The time of this environment's clock."""
        return self.world.now + self.environment.skew_seconds

    def pause(self, seconds: float, sent: Callable[[], object] | None = None) -> None:
        """Let time pass, and other invocations run. The invocation may be killed meanwhile.

        Args:
            sent: makes the request in flight arrive, for an invocation that is killed after it has sent it.
        """
        world = self.world
        self._pauses += 1
        wakes, reason = world.now + seconds, ""
        if self._pauses == self._crashes_at:
            wakes, reason = world.now + world.random.random() * seconds, "killed"
        if wakes >= self.deadline:
            wakes, reason = self.deadline, "killed by its time-out"
        if wakes > world.now:
            world.at(wakes, self._resume)
            self._hub.switch()
        if reason:
            arrives = sent is not None and world.chance(0.5)
            world.note("%s%s", reason, ", its request still arrives" if arrives else "")
            if sent is not None and arrives:
                sent()
            self._killed = True
        if self._killed:
            raise _KilledError

    def call(self, what: str, effect: Callable[[], T], faults: CallFaults, error: Callable[[], Exception]) -> T:
        """Call a collaborator: latency, effect, latency, and the faults of each.

        Args:
            effect: may raise an error of the service.
            error: makes the exception of a call without a response.
        """
        world = self.world
        draw = 1.0 if faults is NO_CALL_FAULTS else world.random.random()
        is_lost = draw < faults.lost
        is_late = not is_lost and draw < faults.lost + faults.late
        is_unanswered = not is_lost and not is_late and draw < sum(faults)

        def arrives_later() -> None:
            world.after(world.random.uniform(0, LATEST_ARRIVAL_SECONDS), lambda: _without_errors(effect))

        self.pause(world.latency(), sent=arrives_later)
        if is_lost or is_late:
            world.note("%s: failed%s", what, ", and takes effect later" if is_late else "")
            if is_late:
                arrives_later()
            self.pause(world.latency())
            raise error()
        try:
            answer = effect()
        finally:
            self.pause(world.latency())
            if is_unanswered:
                world.note("%s: took effect, its response is lost", what)
                raise error()
        return answer

    def abandon(self) -> None:
        """End it without calling ``end``."""
        self._killed = True
        self.end = lambda _: None
        self._resume()

    def _resume(self) -> None:
        self.world.invocation = self
        self.environment.enter()
        self._greenlet.switch()
        self.world.invocation = None

    def _run(self) -> None:
        answer = None
        try:
            if not self._killed:
                answer = self.handle(self)
        except (_KilledError, DefectError):
            pass
        del self.world.unfinished[id(self)]
        self.end(answer)


def _without_errors(effect: Callable[[], object]) -> None:
    """For a request whose caller no longer waits: its errors have no recipient."""
    with suppress(RenameFailedError, ClientError):
        effect()
