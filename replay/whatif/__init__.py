"""The same requests through another world (docs/capacity.md)."""

from replay.whatif.requests import Kind, Request, Requests, requests_of
from replay.whatif.what_if import Answer, what_if
from replay.whatif.world import Granularity, Iommu, World, standard_worlds

__all__ = (
    "Answer",
    "Granularity",
    "Iommu",
    "Kind",
    "Request",
    "Requests",
    "World",
    "requests_of",
    "standard_worlds",
    "what_if",
)
