"""What a notebook shows of results: compact tables."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.findings import Finding, ReplayResult, Severity

MakeFinding = Callable[[str, str, Severity], Finding]
MakeResult = Callable[..., ReplayResult]


def test_a_finding_shows_its_facts_and_its_chain(make_finding: MakeFinding) -> None:
    html = make_finding("TK101", "stale-iommu-mapping", Severity.ERROR)._repr_html_()
    assert html.startswith("<table>")
    assert "<td>error TK101</td><td>1 MiB of private guest memory is still mapped" in html
    assert "<td>vm</td><td>tdx-7, pid 4127</td>" in html
    assert "<td>12.904881 s</td><td>private " in html
    assert "<td>never</td><td>unmap " in html


def test_an_outcome_shows_how_much_was_judged(
    make_finding: MakeFinding, make_result: MakeResult
) -> None:
    result = make_result(make_finding("TK101", "x", Severity.ERROR))
    html = result.outcomes[0]._repr_html_()
    assert "<td>violated</td><td>1</td><td>41,207</td><td>704 (704 loss)</td>" in html
    assert "<td>error</td><td>TK101</td><td>1</td><td>1 MiB of private" in html


def test_a_result_shows_findings_first_then_every_check(
    make_finding: MakeFinding, make_result: MakeResult
) -> None:
    html = make_result(make_finding("TK101", "x", Severity.ERROR))._repr_html_()
    assert html.count("<table>") == 2
    assert html.index("1 MiB of private") < html.index("TK306 vsock-accounting")
    assert make_result()._repr_html_().count("<table>") == 1
