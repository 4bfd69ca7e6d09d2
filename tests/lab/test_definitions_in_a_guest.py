"""Every definition that a plan may fall back to: a real kernel takes it and its filter."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.plans import PLANS
from lab.boot import SHARED, boot
from lab.tools import missing

TRY = """
cd /sys/kernel/tracing
while IFS=';' read -r name filter definition; do
    printf '%s\\n' "$definition" >> dynamic_events
    if [ -n "$filter" ]; then echo "$filter" > "events/$name/filter"; fi &&
        echo 1 > "events/$name/enable" && echo 0 > "events/$name/enable" && echo "taken" ||
        echo "refused $definition"
    echo "-:$name" >> dynamic_events
done < SHARED/definitions
cat dynamic_events
"""


@pytest.mark.lab
def test_a_kernel_takes_every_definition(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    lines = [
        ";".join((f"{plan.group}/{probe.name}", probe.filter, definition))
        for plan in PLANS.values()
        for probe in plan.probes
        for definition in probe.definitions(plan.group)
    ]
    (tmp_path / "definitions").write_text("\n".join(lines) + "\n")
    ran = boot(TRY.replace("SHARED", str(SHARED)), shared=tmp_path)
    assert ran.stdout.splitlines() == ["taken"] * len(lines), ran.stdout + ran.stderr
