"""What starts an audit every night: unit, timer, cron line and CronJob name what there is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tracekit.cli import app

PACKAGING = Path(__file__).parents[3] / "packaging"
COMMANDS = {c.name for c in app.registered_commands}


def check_command(words: list[str]) -> None:
    """``tracekit audit /etc/tracekit/audit.toml``."""
    at = next(i for i, word in enumerate(words) if Path(word).name == "tracekit" and i < 4)
    assert words[at + 1] == "audit" in COMMANDS
    assert words[at + 2 :] == ["/etc/tracekit/audit.toml"]


def test_the_service_runs_the_audit() -> None:
    text = (PACKAGING / "tracekit-audit.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, flags=re.M)
    check_command(shlex.split(command))
    assert (PACKAGING / "tracekit-audit.timer").is_file()
    # Where DynamicUser may write is where the packaged configuration writes.
    (state,) = re.findall(r"^StateDirectory=(.*)$", text, flags=re.M)
    config = (PACKAGING / "audit.toml").read_text(encoding="utf-8")
    assert f'folder = "/var/lib/{state}"' in config


def test_systemd_takes_both_units() -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze")
    units = [str(PACKAGING / f"tracekit-audit.{kind}") for kind in ("service", "timer")]
    done = subprocess.run([program, "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "tracekit-audit" in line]
    assert [line for line in said if "is not executable" not in line] == []


def test_the_cron_line_has_its_seven_fields() -> None:
    lines = (PACKAGING / "tracekit-audit.cron").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if not line.startswith("#"))
    *when, user, command = line.split(None, 6)
    assert all(re.fullmatch(r"[\d*]+", field) for field in when)
    assert (len(when), user) == (5, "tracekit")
    assert "%" not in command
    check_command(shlex.split(command)[3:])


def test_the_cron_job_tries_again_only_what_may_pass() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    job = yaml.safe_load((PACKAGING / "audit-cronjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    spec = job["spec"]["jobTemplate"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [1, 2]
    pod = spec["template"]["spec"]
    # A pod failure policy needs it.
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["name"] == rule["onExitCodes"]["containerName"]
    check_command(container["args"])
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
