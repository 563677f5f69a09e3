"""Endpoints of VPCEP and IAM by region."""

from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion


class UnknownRegionError(ValueError):
    """The SDK has no VPCEP endpoint for a region. The text is the region's name."""


def known_region(name: str, endpoints: dict[str, str]) -> Region:
    if name in endpoints:
        return Region(name, endpoints[name])
    try:
        return VpcepRegion.value_of(name)
    except KeyError:
        raise UnknownRegionError(name) from None


def iam_endpoint(region: str, endpoints: dict[str, str]) -> str | None:
    """The IAM endpoint of a region, in the domain of its VPCEP endpoint. None if that has another form.

    The SDK's own list lacks regions, and returns the IAM of another site for them.

    Args:
        endpoints: custom VPCEP endpoints, by region.

    Raises:
        UnknownRegionError: the SDK has no endpoint for the region.
    """
    known = VpcepRegion.static_fields.get(region) or known_region(region, endpoints)
    scheme, separator, domain = known.endpoints[0].partition("://vpcep.")
    return f"{scheme}://iam.{domain}" if separator else None
