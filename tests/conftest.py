"""The distribution of tests to processes, and the figures that tests report."""

import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.localcloud.aws import no_proxy_on_loopback

pytest.register_assert_rewrite("tests.integration.observer")
os.environ.update(no_proxy_on_loopback())
# A shell that starts the tests in the background makes them and their child processes ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Slow tests that mostly wait: they run concurrently with the others that use local clouds.
OF_OTHER_CLOUDS = (
    "tests/integration/test_api_keys.py",
    "tests/integration/test_keyless.py",
    "tests/integration/test_least_privilege.py",
    "tests/integration/test_producers.py",
    "tests/integration/test_thousand_events.py",
)


class _OneProcessAGroup(LoadScopeScheduling):  # type: ignore[misc]
    """The marker `xdist_group` has no effect with xdist 3.8 and pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in OF_OTHER_CLOUDS:
            return "other clouds"
        if path.startswith("tests/integration/"):
            return "clouds"
        return "simulation" if path.startswith("tests/faults/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _OneProcessAGroup(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each property that a test recorded as figures, since the output of xdist's processes is not shown."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, figures in getattr(report, "user_properties", ()):
                if name == "figures" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {figures}")
