"""Virtual time, and invocations that take turns in it.

Each invocation is a greenlet. Whenever the function calls a collaborator or sleeps, its greenlet pauses, and the world
goes on with whatever is due next: another invocation, a message that becomes visible, a rename that takes effect late.
One seed decides everything, so a run is repeated by its seed.

An invocation ends by answering, by being killed at a pause, or by its time-out, as in Lambda: it never outlives that.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
# A request whose sender was killed, or has stopped listening, still arrives within this time; a rename may take longer.
LATEST_ARRIVAL_SECONDS: Final = 2.0

T = TypeVar("T")


class Faults(NamedTuple):
    """How often a call fails, as probabilities of which at most one comes true.

    Attributes:
        lost: it never arrives.
        late: it takes effect only after the caller has stopped listening.
        unanswered: it takes effect, and the answer is lost.
    """

    lost: float = 0.0
    late: float = 0.0
    unanswered: float = 0.0


NO_FAULTS: Final = Faults()


@dataclass(frozen=True)
class Weather:
    """What goes wrong in a run, and how often. The default is none of it.

    Attributes:
        crash: of an invocation, at any of its pauses.
        slow_seconds: what a slow call takes on its way, each way.
        skew_seconds: how far the clocks of two environments are apart at the most.
        conflict: of a ledger transaction, with another one.
        unheard: of the end of an invocation: its messages come again, its HTTP caller asks again.
        defect: of an exception that nobody expects, while an event is handled.
        keyless: of asking for the key of Huawei Cloud.
        huawei: how Huawei Cloud may take a call, and the weight of each way; see ``clouds.Huawei``.
        latest_effect_seconds: after the time-out of its invocation a rename has taken effect, or never does.
        refuses_until: then Huawei Cloud accepts the key.
        forbidden: ids of endpoint services that the key may not rename until ``forbidden_until``; nor may it use any
            other project than its own until then.
        outage_until: then Huawei Cloud is available; until then each call is taken in one of the ways of ``outage``.
    """

    crash: float = 0.0
    slow_seconds: float = 0.1
    skew_seconds: float = 0.0
    ledger: Faults = NO_FAULTS
    conflict: float = 0.0
    bus: Faults = NO_FAULTS
    queue: Faults = NO_FAULTS
    unheard: float = 0.0
    defect: float = 0.0
    keyless: float = 0.0
    huawei: tuple[tuple[str, ...], tuple[float, ...]] = (("fine",), (1.0,))
    latest_effect_seconds: float = 0.0
    refuses_until: float = 0.0
    forbidden: frozenset[str] = frozenset()
    forbidden_until: float = 0.0
    outage: tuple[str, ...] = ("unreachable",)
    outage_until: float = 0.0


class BrokenPromise(NamedTuple):
    """Which of the promises, and what broke it."""

    promise: int
    text: str


class World:
    """Virtual time and chance; the agenda of everything that is due."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.now = START
        self.weather = Weather()
        self.invocation: Invocation | None = None
        self.broken: BrokenPromise | None = None
        self.trace: list[str] = []
        self.tracing = tracing
        self.steps = 0
        self.alive: dict[int, Invocation] = {}
        self._agenda: list[tuple[float, float, int, Callable[[], object]]] = []
        self._entries = 0

    def at(self, time: float, do: Callable[[], object]) -> None:
        """Of things due at the same time chance decides which comes first."""
        self._entries += 1
        heapq.heappush(self._agenda, (max(time, self.now), self.random.random(), self._entries, do))

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.at(self.now + seconds, do)

    def run(self) -> None:
        """Until nothing is due any more, or a promise is broken."""
        while self._agenda and not self.broken:
            self.now, _, _, do = heapq.heappop(self._agenda)
            do()
            self.steps += 1
            if self.steps > MAX_STEPS:
                self.breaks(6, "events go round and round")

    def close(self) -> None:
        """End the invocations that are left."""
        for invocation in list(self.alive.values()):
            invocation.abandon()

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def latency(self) -> float:
        """Of one way; none now and then, so that nobody else gets a turn."""
        draw = self.random.random()
        if draw < 0.3:
            return 0.0
        return self.random.expovariate(50) if draw < 0.8 else self.random.uniform(0, self.weather.slow_seconds)

    def breaks(self, promise: int, text: str) -> None:
        if self.broken is None:
            self.broken = BrokenPromise(promise, text)
        self.note("PROMISE %s IS BROKEN: %s", promise, text)

    def note(self, text: str, *args: object) -> None:
        if self.tracing:
            who = self.invocation.name if self.invocation else ""
            time = datetime.fromtimestamp(START, UTC) + timedelta(seconds=self.now - START)
            self.trace.append(f"{time:%m-%d %H:%M:%S.%f}"[:-3] + f" {who:12} {text % args}")


class DefectError(Exception):
    """What nobody expects. Lambda reports an error where the function does not catch it."""


class _KilledError(BaseException):
    """Ends an invocation. No code of the function catches it."""


class Invocation:
    """One invocation of the function.

    Attributes:
        environment: the one that it runs in, and no other invocation meanwhile.
        event: the one it is at.
        groups: of its messages, by their ids.
        is_dry_run: it must change nothing.
        refused_groups: those in which Huawei Cloud has refused an event.
    """

    def __init__(
        self,
        world: World,
        name: str,
        environment: Environment,
        timeout: float,
        handle: Callable[[Invocation], Any],
        end: Callable[[Any | None], None],
    ) -> None:
        """
        Args:
            handle: the trigger.
            end: hears its answer, None where the invocation was killed.
        """
        self.world = world
        self.name = name
        self.environment = environment
        self.deadline = world.now + timeout
        self.event: object = None
        self.is_dry_run = False
        self.groups: dict[object, str] = {}
        self.refused_groups: set[str | None] = set()
        self._handle = handle
        self._end = end
        self._crashes_at = world.random.randint(1, 30) if world.chance(world.weather.crash) else 0
        self._pauses = 0
        self._dead = False
        self._greenlet = greenlet(self._run)
        self._hub = getcurrent()
        world.alive[id(self)] = self
        world.after(0, self._resume)

    def clock(self) -> float:
        """As this environment sees it."""
        return self.world.now + self.environment.skew_seconds

    def pause(self, seconds: float, sent: Callable[[], object] | None = None) -> None:
        """Let time pass, and others take their turns. The invocation may be killed meanwhile.

        Args:
            sent: sees to it that the request on its way arrives though its sender is dead, as it may.
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
            self._dead = True
        if self._dead:
            raise _KilledError

    def call(self, what: str, effect: Callable[[], T], faults: Faults, refusal: Callable[[], Exception]) -> T:
        """Call a collaborator: a way there, an effect, a way back, and what may go wrong with each.

        Args:
            effect: may raise what the caller shall hear.
            refusal: what the caller hears where there is no answer.
        """
        world = self.world
        draw = 1.0 if faults is NO_FAULTS else world.random.random()
        is_lost = draw < faults.lost
        is_late = not is_lost and draw < faults.lost + faults.late
        is_unanswered = not is_lost and not is_late and draw < sum(faults)

        def arrives_later() -> None:
            world.after(world.random.uniform(0, LATEST_ARRIVAL_SECONDS), lambda: _regardless(effect))

        self.pause(world.latency(), sent=arrives_later)
        if is_lost or is_late:
            world.note("%s: refused%s", what, ", and takes effect later" if is_late else "")
            if is_late:
                arrives_later()
            self.pause(world.latency())
            raise refusal()
        try:
            answer = effect()
        finally:
            self.pause(world.latency())
            if is_unanswered:
                world.note("%s: took effect, its answer is lost", what)
                raise refusal()
        return answer

    def abandon(self) -> None:
        """End it without a trace."""
        self._dead = True
        self._end = lambda _: None
        self._resume()

    def _resume(self) -> None:
        self.world.invocation = self
        self.environment.enter()
        self._greenlet.switch()
        self.world.invocation = None

    def _run(self) -> None:
        answer = None
        try:
            if not self._dead:
                answer = self._handle(self)
        except (_KilledError, DefectError):
            pass
        del self.world.alive[id(self)]
        self._end(answer)


def _regardless(effect: Callable[[], object]) -> None:
    """For a request that nobody waits for: what it raises is for its caller alone."""
    with suppress(RenameFailedError, ClientError):
        effect()
