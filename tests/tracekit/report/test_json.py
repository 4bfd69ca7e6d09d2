"""The JSON that scripts hold on to: interface first, every field there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from tracekit.findings import Finding, ReplayResult, Severity, VmRef
from tracekit.report.json import render_json

MakeFinding = Callable[[str, str, Severity], Finding]
MakeResult = Callable[..., ReplayResult]


def test_every_field_is_there_and_null_where_nothing_is_known(
    make_finding: MakeFinding, make_result: MakeResult
) -> None:
    one = make_finding("TK101", "stale-iommu-mapping", Severity.ERROR)
    one = replace(one, vm=VmRef(name=None, pid=7), container=None, device=None)
    document = json.loads(render_json(make_result(one)))
    assert document["schema"] == 1
    trace = {"path", "events", "span_ns", "lost_events", "kernel", "vms"}
    assert trace <= document["trace"].keys()
    assert document["checks"][0] == {
        "code": "TK101",
        "name": "stale-iommu-mapping",
        "verdict": "violated",
        "findings": 1,
        "judged": {"decided": 41207, "undecided": 704, "reasons": {"loss": 704}},
    }
    by_code = {c["code"]: c for c in document["checks"]}
    assert by_code["TK306"]["verdict"] == "not_checked"
    (finding,) = document["findings"]
    assert finding["vm"] == {"name": None, "pid": 7, "kvm": None}
    assert finding["container"] is None
    assert finding["device"] is None
    assert finding["related"] == []
    (occurrence,) = finding["occurrences"]
    assert occurrence["iova_hex"] == "0x7ff00000"
    assert occurrence["iova"] == 0x7FF00000
    assert occurrence["until_ns"] is None
    for name in ("local", "peer", "waited_ns", "timeout_ns", "unsent_bytes"):
        assert occurrence[name] is None
    assert occurrence["events"] == [47102, 47103, 48213, 48214]


def test_an_address_without_a_value_has_no_hex_either(
    make_finding: MakeFinding, make_result: MakeResult
) -> None:
    document = json.loads(render_json(make_result(make_finding("TK901", "x", Severity.NOTE))))
    (occurrence,) = document["findings"][0]["occurrences"]
    assert occurrence["iova"] is None
    assert occurrence["iova_hex"] is None


def test_findings_come_worst_first(make_finding: MakeFinding, make_result: MakeResult) -> None:
    made = make_result(
        make_finding("TK105", "x", Severity.WARNING), make_finding("TK202", "x", Severity.ERROR)
    )
    codes = [f["code"] for f in json.loads(render_json(made))["findings"]]
    assert codes == ["TK202", "TK105"]
