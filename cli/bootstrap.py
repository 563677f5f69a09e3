"""The command's composition root: creates a renamer from the environment and the options."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cli.model import Renamer, UsageError
from cli.runner import Pace
from function.settings import SettingsError, StaticKey, load

if TYPE_CHECKING:
    from cli.direct import Direct
    from cli.stack import Stack

REQUIRED: Final = ("HUAWEICLOUD_REGION", "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_PROJECT_ID")
# The function's settings for Huawei Cloud and for names.
_SETTINGS: Final = ("HUAWEICLOUD_REGION", "VPCEP_ENDPOINT", "NAME_MAX_LENGTH", "NAME_PATTERN")
_SDK: Final = "HUAWEICLOUD_SDK_"
_ENDPOINTS: Final = "HUAWEICLOUD_SDK_REGION_VPCEP_"
_OF_FEDERATION: Final = ("HUAWEICLOUD_SDK_IDP_ID", "HUAWEICLOUD_SDK_IAM_ENDPOINT")
# Required by the function, and not used by the command.
_OF_FUNCTION: Final = {"OUTCOME_BUS": "none", "AWS_REGION": "none"}


class _Everything:
    """Allows all projects and regions: only the key limits an operator."""

    def __contains__(self, name: object) -> bool:
        return True


def renamer(pace: Pace, *, stack: str | None, api_url: str | None, parallel: int) -> Renamer:
    """The renamer for the given options.

    Raises:
        UsageError: a setting is missing or malformed.
    """
    if stack is None and api_url is None:
        return direct(parallel=parallel)
    from cli.stack import Api  # noqa: PLC0415 - boto3: only if a stack is used

    url = api_url or deployed(stack).api_url()
    if not url.startswith(("https://", "http://localhost", "http://127.0.0.1")):
        raise UsageError("--api-url must be an https:// address: the stack's output RenameApiUrl.")
    return Api(url, parallel=parallel, stopping=pace.stopping)


def deployed(name: str | None) -> "Stack":
    if name is None:
        raise UsageError("Which stack? Add --stack NAME.")
    from cli.stack import Stack  # noqa: PLC0415 - as above

    return Stack(name)


def direct(*, parallel: int, environment: Mapping[str, str] = os.environ) -> "Direct":
    """A renamer with the function's own objects, without AWS.

    Raises:
        UsageError: a setting is missing or malformed.
    """
    if missing := [name for name in REQUIRED if not environment.get(name, "").strip()]:
        raise UsageError(
            f"Not set: {', '.join(missing)}. The command goes to Huawei Cloud with the key of the environment "
            "(or through a deployed stack, by --stack NAME or --api-url URL)."
        )
    own = {
        name: value
        for name, value in environment.items()
        if name in _SETTINGS or (name.startswith(_SDK) and name not in _OF_FEDERATION)
    }
    try:
        settings = load(own | _OF_FUNCTION)
    except SettingsError as error:
        raise UsageError(f"{error}.") from None
    # Importing the SDK takes a quarter of a second, too long for --help.
    from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion  # noqa: PLC0415

    from cli.direct import Direct, Discard, ListableEndpointServices  # noqa: PLC0415
    from function.adapters.huawei.credentials import Credentials, StaticCredentials  # noqa: PLC0415
    from function.adapters.huawei.regions import UnknownRegionError, known_region  # noqa: PLC0415
    from function.adapters.no_ledger import NoLedger  # noqa: PLC0415
    from function.domain.name_pattern import NamePatternError, compile_name_pattern  # noqa: PLC0415
    from function.domain.policy import Policy  # noqa: PLC0415
    from function.domain.rename_service import RenameService  # noqa: PLC0415
    from function.domain.service_calls import ServiceCalls  # noqa: PLC0415

    region = settings.huaweicloud_region
    assert isinstance(settings.key, StaticKey)  # noqa: S101 - the settings have no other way to a key here
    key = Credentials(*settings.key)
    # The SDK reads the endpoints of other regions from its own variables.
    named = {name.removeprefix(_ENDPOINTS).replace("_", "-").lower() for name in own if name.startswith(_ENDPOINTS)}
    regions = frozenset({*VpcepRegion.static_fields, *named, region})
    try:
        endpoint = known_region(region, settings.vpcep_endpoints).endpoints[0]
        services = ListableEndpointServices(
            StaticCredentials(key),
            region=region,
            regions=regions,
            endpoints=settings.vpcep_endpoints,
            pool_size=parallel,
        )
    except UnknownRegionError:
        raise UsageError("HUAWEICLOUD_REGION names a region that VPCEP is not known in.") from None
    try:
        pattern = settings.name_pattern
        name_pattern = compile_name_pattern(pattern, settings.name_max_length) if pattern else None
    except NamePatternError as error:
        raise UsageError(f"NAME_PATTERN is malformed: it {error}.") from None
    policy = Policy(
        region=region,
        name_max_length=settings.name_max_length,
        name_pattern=name_pattern,
        projects=_Everything(),
        regions=_Everything(),
        default_project=lambda _: key.project_id,
        now=lambda: datetime.now(UTC),
    )
    rename_service = RenameService(ServiceCalls(services), NoLedger(), Discard(), policy, read_previous_name=True)
    return Direct(services, policy, rename_service, endpoint=endpoint, project_id=key.project_id, regions=regions)
