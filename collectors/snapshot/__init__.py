"""What is there when a recording begins: VMs, what they hold open, and what limits them.

Read from /proc, /sys and debugfs under a root folder, so that a made-up tree can be read as well.
Everything is optional: what cannot be read is left out.
"""

from __future__ import annotations

from collectors.snapshot.command_lines import without_secrets
from collectors.snapshot.host import Snapshot, take_snapshot
from collectors.snapshot.processes import Vm, find_vm, running_vms

__all__ = ("Snapshot", "Vm", "find_vm", "running_vms", "take_snapshot", "without_secrets")
