"""A function without a ledger."""

from __future__ import annotations

from function.adapters.no_ledger import NoLedger
from function.domain.model import FIRST_CYCLE
from function.domain.ports import Claim, Conclusion, Ledger
from tests.deadlines import within
from tests.fakes.failures import unavailable
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import TARGET, failure_of, success_of


def test_function_without_a_ledger_grants_every_claim_and_keeps_no_outcome(world: World) -> None:
    ledger: Ledger = NoLedger()
    event = world.event()

    for _ in range(2):
        claim = ledger.claim(event, TARGET, within(60))
        assert isinstance(claim, Claim)
        assert claim.cycle == FIRST_CYCLE
        assert ledger.settle(claim, success_of(event), within(60), release=True) is None
        assert ledger.conclude(Conclusion(event, FIRST_CYCLE, failure_of(event, unavailable())), within(60)) is None
        ledger.release(claim, within(60))


def test_function_without_a_ledger_has_claimed_no_event_before(world: World) -> None:
    ledger: Ledger = NoLedger()
    event = world.event()

    assert ledger.preview(event, TARGET, within(60)) == ledger.claim(event, TARGET, within(60))
    assert ledger.preview(event, TARGET, within(60), if_claimed=True) is None
