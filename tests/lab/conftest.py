"""The lab's figures at the end of a run, and its end before the beginning where nothing boots."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from lab.tools import missing


@dataclass
class Figures:
    """What the workloads on all kernels came to."""

    kernels: set[str] = field(default_factory=set)
    workloads: int = 0
    expected: int = 0
    found: int = 0
    others: int = 0

    def line(self) -> str:
        return (
            f"lab: {len(self.kernels)} kernels, {self.workloads} workloads, {self.found} of"
            f" {self.expected} violations found, {self.others} others"
        )


FIGURES = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exit status 2 where a kernel was to be booted and none can be: only CI may skip that."""
    if not any(item.get_closest_marker("lab") for item in session.items):
        return
    if reason := missing():
        pytest.exit(f"the lab cannot boot: {reason}", returncode=2)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """To be added to."""
    return request.config.stash[FIGURES]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line."""
    figures = config.stash.get(FIGURES, Figures())
    if figures.workloads:
        print(figures.line())
