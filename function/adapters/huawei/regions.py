"""Where VPCEP and IAM are, by region."""

from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion


class UnknownRegionError(ValueError):
    """VPCEP is not known in a region; carries the region's name."""


def known_region(name: str, endpoints: dict[str, str]) -> Region:
    if name in endpoints:
        return Region(name, endpoints[name])
    try:
        return VpcepRegion.value_of(name)
    except KeyError:
        raise UnknownRegionError(name) from None


def iam_endpoint(region: str, endpoints: dict[str, str]) -> str | None:
    """The address of a region's IAM: in the domain that VPCEP has there. None if that has another form.

    The SDK's own list lacks regions, and for those names the IAM of another site.

    Args:
        endpoints: of VPCEP by region, for regions whose own endpoint is not to be used.

    Raises:
        UnknownRegionError: the SDK knows no endpoint there.
    """
    known = VpcepRegion.static_fields.get(region) or known_region(region, endpoints)
    scheme, separator, domain = known.endpoints[0].partition("://vpcep.")
    return f"{scheme}://iam.{domain}" if separator else None
