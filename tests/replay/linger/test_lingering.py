"""When a close really waits, when it is cut short, and what never waits, as each model made it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from made_sockets import alarms, judged, unjudged

from replay.linger.closing import Closing, Kind
from tracekit.events.process import ProcessExit
from tracekit.synth.vsock.generate import Made, generate

MODELS = ("legacy", "v1", "merged")
SIDES = ("loopback", "guest", "host")
MS = 1_000_000


def closings(made: Made) -> list[Closing]:
    """Every close and shutdown of a recording that is correct by its own model."""
    seen: list[Closing] = []
    lingering = judged(made, each=seen.append)
    assert alarms(lingering) == []
    assert unjudged(lingering) == {}
    return seen


def closes(workload: str, model: str, side: str = "loopback", seeds: int = 4) -> list[Closing]:
    made = (generate(workload, seed=s, model=model, side=side) for s in range(seeds))
    return [c for m in made for c in closings(m) if c.kind in (Kind.CLOSE, Kind.BARE)]


@pytest.mark.parametrize("side", SIDES)
def test_a_starved_worker_makes_a_merged_close_really_wait(side: str) -> None:
    waited = [c for c in closes("linger-on", "merged", side) if c.waited_ns > 300 * MS]
    assert waited
    for one in waited:
        assert one.may_linger
        assert one.unsent_before
        assert one.timeout_ns is not None
        if one.waited_ns < one.timeout_ns:  # until all was handed over, and no longer
            assert one.unsent_after == 0
            assert one.sent_ns is not None
            assert 0 <= one.ended - one.sent_ns < 5 * MS


@pytest.mark.parametrize("model", MODELS)
def test_a_device_reset_makes_it_run_to_its_timeout(model: str) -> None:
    found = [c for c in closes("resets", model, "guest", seeds=30) if c.reset and c.unsent_at_end]
    assert found
    for one in found:
        assert one.timeout_ns is not None
        assert 0 <= one.waited_ns - one.timeout_ns < 10 * MS


@pytest.mark.parametrize("model", MODELS)
def test_a_signal_ends_it_early(model: str) -> None:
    found = [c for c in closes("signals", model) if c.signal == 1]
    assert found
    for one in found:
        assert one.timeout_ns is not None
        assert 50 * MS < one.waited_ns < one.timeout_ns
        if model != "legacy":
            assert one.unsent_after


@pytest.mark.parametrize("model", MODELS)
def test_an_exiting_process_does_not_linger(model: str) -> None:
    found = [c for c in closes("exits", model) if c.why_not == "its process exits"]
    assert found
    assert any(c.unsent_after for c in found)
    assert all(c.waited_ns < MS for c in found)


@pytest.mark.parametrize("model", MODELS)
def test_a_linger_time_of_0_does_not_linger(model: str) -> None:
    found = [c for c in closes("linger-zero", model) if c.why_not == "its linger time is 0"]
    assert found
    assert all(c.waited_ns < MS and c.resets == 0 for c in found)


@pytest.mark.parametrize("model", MODELS)
def test_a_seqpacket_lingers(model: str) -> None:
    found = [c for c in closes("seqpacket", model) if c.may_linger]
    assert any(c.waited_ns > 100 * MS for c in found)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("why", "transports"),
    [
        ("datagrams never linger", {"virtio"}),
        ("its transport never lingers", {"hyperv", "vmci"}),
        ("it is not connected", {"virtio"}),
    ],
)
def test_other_sockets_never_linger(why: str, transports: set[str], model: str) -> None:
    found = [c for c in closes("other-sockets", model) if c.why_not == why]
    assert {c.transport for c in found} == transports
    assert all(c.waited_ns < MS for c in found)


@pytest.mark.parametrize("model", MODELS)
def test_shutdown_waits_in_the_v1_series_alone(model: str) -> None:
    made = [generate("shutdowns", seed=s, model=model) for s in range(6)]
    found = [c for m in made for c in closings(m) if c.kind is Kind.SHUTDOWN]
    assert any(c.unsent_before for c in found if c.may_linger)
    assert any(c.waited_ns > 100 * MS for c in found) == (model == "v1")


def without_types(made: Made) -> Made:
    """The recording of a kernel whose probes know no types (before 6.4): a release is a pointer
    alone, and what lies there is soon another socket."""
    unknown = ("vsock.sent", "vsock.credit", "vsock.release")
    ordered = sorted((e for e in made.events if e.name_ not in unknown[:2]), key=lambda e: e.ts_ns)
    ordered = [replace(e, object=None) if e.name_ == unknown[2] else e for e in ordered]
    last = {e.object: i for i, e in enumerate(ordered) if getattr(e, "object", None)}
    place: dict[int, int] = {}
    events = []
    for i, event in enumerate(ordered):
        sk = getattr(event, "object", None)
        if sk:
            free = next(n for n in range(len(last)) if n not in place.values())
            place.setdefault(sk, free)
            names = {f.name for f in fields(event)} - {f.name for f in fields(ProcessExit)}
            gone = dict.fromkeys(names - {"object"}) if "release" in event.name_ else {}
            event = replace(event, object=0xFFFF_8000_0000_0000 + 4096 * place[sk], **gone)
            if last[sk] == i:
                del place[sk]
        events.append(event)
    return replace(made, events=events)


@pytest.mark.parametrize("workload", ["linger-on", "linger-off", "slow-reader", "bulk"])
def test_a_pointer_that_is_used_again_is_another_socket(workload: str) -> None:
    for seed in range(6):
        made = without_types(generate(workload, seed=seed, model="legacy", side="loopback"))
        assert alarms(judged(made)) == []
