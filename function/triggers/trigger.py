"""What the triggers have in common."""

from dataclasses import KW_ONLY, dataclass

from function.domain.event_parser import EventParser
from function.domain.policy import Policy
from function.domain.rename_service import RenameService
from function.telemetry import Telemetry
from function.workers import Workers


@dataclass(eq=False, repr=False)
class Trigger:
    """The collaborators of a trigger."""

    parser: EventParser
    policy: Policy
    rename_service: RenameService
    telemetry: Telemetry
    _: KW_ONLY
    workers: Workers
