"""template.yml as data, with intrinsic functions in their long form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]


class _Loader(yaml.SafeLoader):
    pass


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    construct: Callable[..., Any] = (
        loader.construct_scalar if isinstance(node, yaml.ScalarNode) else loader.construct_sequence
    )
    if isinstance(node, yaml.MappingNode):
        construct = loader.construct_mapping
    return {name: construct(node)}


_Loader.add_multi_constructor("!", _intrinsic)
TEMPLATE: Final = yaml.load((ROOT / "template.yml").read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
RESOURCES: Final[dict[str, Any]] = TEMPLATE["Resources"]


def of_type(kind: str) -> dict[str, Any]:
    """The properties of all resources of a type, by logical id."""
    return {name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == kind}
