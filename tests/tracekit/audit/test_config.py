"""audit.toml: what is wrong is told with its key, in one line."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from replay.checks import CHECKS
from tracekit.audit.config import AuditConfig, ExecutorKind, Ignore, Reports, State, load_config
from tracekit.errors import UsageError
from tracekit.findings import Severity

ROOT = Path(__file__).parents[3]
SOURCES = '[[sources]]\nroot = "traces"\n'


def loaded(folder: Path, text: str) -> AuditConfig:
    path = folder / "audit.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, checks={code: check.name for code, check in CHECKS.items()})


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, SOURCES)
    assert config.name == "audit"
    assert config.sources == (str(tmp_path / "traces"),)
    assert config.execution.kind is ExecutorKind.PROCESSES
    assert config.thresholds.fail_on is Severity.ERROR
    assert config.outputs.folder == str(tmp_path / "audit")
    assert config.outputs.trace_reports is Reports.ALL


def test_everything_can_be_said(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
        name = "lab"
        [[sources]]
        root = "/srv/cluster-*/traces"
        [[sources]]
        root = "s3://bucket/traces?region=eu-central-1"
        [checks]
        only = ["TK101", "early-linger-return"]
        grace = "2ms"
        generation = "11.1"
        linger_model = "merged"
        slack = "50ms"
        [thresholds]
        fail_on = "warning"
        states = ["new", "flapping"]
        max_undecided = 0.25
        max_undecided_rise = 0.1
        max_bad_traces = 3
        max_missing = 2
        [[ignore]]
        check = "TK105"
        host = "old-*"
        reason = "firmware of 2019"
        until = 2026-12-31
        [executor]
        kind = "dask"
        scheduler = "tcp://10.0.0.1:8786"
        shard_events = 5000000
        [outputs]
        folder = "out"
        trace_reports = "findings"
        trend_nights = 14
        metrics = "/var/lib/node_exporter/tracekit.prom"
        """,
    )
    assert config.sources[1] == "s3://bucket/traces?region=eu-central-1"
    assert config.checks.only == ("TK101", "TK301")
    assert config.checks.grace_ns == 2_000_000
    assert config.checks.slack_ns == 50_000_000
    assert config.thresholds.states == (State.NEW, State.FLAPPING)
    assert config.ignore == (
        Ignore(reason="firmware of 2019", until=date(2026, 12, 31), check="TK105", host="old-*"),
    )
    assert config.execution.scheduler == "tcp://10.0.0.1:8786"
    assert config.outputs.folder == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"sources is missing"),
        ("sources = 3", r"sources is not a list of tables"),
        ("[[sources]]", r"sources\[0\]\.root is missing"),
        ('[[sources]]\nroot = ""', r"sources\[0\]\.root is not a text but ''"),
        ('[[sources]]\nroot = "ftp://x/y"', r"sources\[0\]\.root is 'ftp://x/y', a kind of URI"),
        (
            '[[sources]]\nroot = "s3://KEY:SECRET@b/x"',
            r"sources\[0\]\.root cannot be used: s3://b/x is given with credentials",
        ),
        (f"{SOURCES}sorces = 1", r"sources\[0\]\.sorces means nothing here"),
        (f"{SOURCES}[checks]\nonly = ['TK999']", r"checks\.only has 'TK999', which is no check"),
        (f"{SOURCES}[checks]\nonly = ['TK111']", r"checks\.only has TK111, which needs in_place"),
        (f"{SOURCES}[checks]\ngrace = 1", r"checks\.grace is not a text but 1"),
        (f"{SOURCES}[checks]\ngrace = '1'", r"checks\.grace '1' has no unit"),
        (f"{SOURCES}[checks]\ngeneration = 'v5'", r"checks\.generation is 'v5', which is none of"),
        (f"{SOURCES}[thresholds]\nfail_on = 'eror'", r"thresholds\.fail_on is 'eror', .* warning"),
        (f"{SOURCES}[thresholds]\nmax_undecided = 2", r"max_undecided is not between 0 and 1"),
        (f"{SOURCES}[thresholds]\nmax_undecided = nan", r"max_undecided is not between 0 and 1"),
        (f"{SOURCES}[thresholds]\nmax_missing = -1", r"max_missing is -1, and at least 0"),
        (f"{SOURCES}[thresholds]\nmax_missing = true", r"max_missing is not a whole number"),
        (f"{SOURCES}[thresholds]\nstates = ['gone']", r"states may have new, still and flapping"),
        (f"{SOURCES}[thresholds]\nmax_mising = 1", r"thresholds\.max_mising means nothing here"),
        (f"{SOURCES}[[ignore]]\ncheck = 'TK101'", r"ignore\[0\]\.reason is missing"),
        (f"{SOURCES}[[ignore]]\nreason = 'x'\ncheck = 'TK101'", r"ignore\[0\]\.until is missing"),
        (
            f"{SOURCES}[[ignore]]\nreason = 'x'\nuntil = 'soon'\ncheck = 'TK101'",
            r"ignore\[0\]\.until is not a date: 'soon'",
        ),
        (
            f"{SOURCES}[[ignore]]\nreason = 'x'\nuntil = 2026-12-31",
            r"ignore\[0\]\.reason stands alone: the rule would ignore everything",
        ),
        (
            f"{SOURCES}[[ignore]]\nreason = 'x'\nuntil = 2026-12-31\ncheck = 'TK9'",
            r"ignore\[0\]\.check is 'TK9', which is no check",
        ),
        (f"{SOURCES}[executor]\nkind = 'dask'", r"executor\.scheduler is missing"),
        (f"{SOURCES}[executor]\nscheduler = 'x'", r"executor\.scheduler is for dask"),
        (
            f"{SOURCES}[executor]\nkind = 'dask'\nscheduler = 'http://x'",
            r"executor\.scheduler is 'http://x', not like tcp://",
        ),
        (f"{SOURCES}[outputs]\ntrend_nights = 1", r"outputs\.trend_nights is 1, and at least 2"),
        (f"{SOURCES}[output]", r"output means nothing here"),
        (f"{SOURCES}checks = 3", r"sources\[0\]\.checks means nothing here"),
        ("checks = 3", r"checks is not a table"),
        ("name = x\n", r"is not TOML: .*line 1"),
        ("[" * 100_000, r"is not TOML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        loaded(tmp_path, text)
    message = raised.value.message
    assert re.search(said, message + (raised.value.help or "")), message
    assert str(tmp_path / "audit.toml") in message
    assert "\n" not in message
    assert "SECRET" not in message + (raised.value.help or "")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_config(tmp_path / "none.toml", checks={})


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, flags=re.S)
    assert len(examples) >= 2
    for example in examples:
        loaded(tmp_path, example)
    for packaged in sorted((ROOT / "packaging").rglob("audit*.toml")):
        loaded(tmp_path, packaged.read_text(encoding="utf-8"))
