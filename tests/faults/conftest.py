"""The fixtures of the fault suite are those of its arena."""

from tests.faults.arena import arena, arena_on

__all__ = ["arena", "arena_on"]
