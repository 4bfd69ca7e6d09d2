"""Three models of lingering: what each waits for, and the differences between them, all of them."""

from __future__ import annotations

import pytest

from replay.linger.models import MODELS, LingerModel, model_of
from replay.models.vsock_sock import (
    SHUTDOWN_MASK,
    Packet,
    Shutdown,
    SocketType,
    State,
    Transport,
    VsockSock,
    Wait,
    WaitsFor,
    finish_close,
)

each = pytest.mark.parametrize("model", list(MODELS.values()), ids=lambda m: m.name)


def lingering(**changed: object) -> VsockSock:
    vsk = VsockSock(unsent_bytes=100)
    vsk.setsockopt_linger(1, 5)
    for name, value in changed.items():
        setattr(vsk, name, value)
    return vsk


def test_the_known_differences_and_no_others() -> None:
    """By case: what close() and shutdown() wait for in the legacy, the v1 and the merged model."""
    sent, peer = WaitsFor.SENT, WaitsFor.PEER_CLOSED
    cases: dict[str, tuple[dict[str, object], tuple[object, ...], tuple[object, ...]]] = {
        "bytes unsent": ({}, (peer, sent, sent), (None, sent, None)),
        "nothing unsent": ({"unsent_bytes": 0}, (peer, None, None), (None, None, None)),
        "peer done": ({"done": True}, (None, sent, sent), (None, sent, None)),
        "exiting": ({"exiting": True}, (None, None, None), (None, sent, None)),
        "off": ({"linger": False}, (None, None, None), (None, None, None)),
        "time 0": ({"lingertime": 0}, (None, None, None), (None, None, None)),
    }
    for name, (state, closing, shutting) in cases.items():
        for model, close, shut in zip(MODELS.values(), closing, shutting, strict=True):
            waits = model.release(lingering(**state))
            assert (waits.waits_for if waits else None) == close, (name, model.name)
            waits = model.shutdown(lingering(**state), 1)
            assert (waits.waits_for if waits else None) == shut, (name, model.name)


@each
@pytest.mark.parametrize(
    "state",
    [
        {"transport": Transport.HYPERV},
        {"transport": Transport.VMCI},
        {"type": SocketType.DGRAM},
        {"state": State.CLOSE},
        {"state": State.LISTEN},
        {"peer_shutdown": SHUTDOWN_MASK},
    ],
)
def test_no_model_lingers_there(model: LingerModel, state: dict[str, object]) -> None:
    vsk = lingering(**state)
    assert model.release(vsk) is None
    assert vsk.closed


@each
def test_a_seqpacket_lingers_as_a_stream_does(model: LingerModel) -> None:
    assert model.release(lingering(type=SocketType.SEQPACKET)) == model.release(lingering())


@each
def test_close_shuts_both_directions_once(model: LingerModel) -> None:
    vsk = lingering()
    model.release(vsk)
    assert vsk.packets == [Packet("SHUTDOWN", 3)]
    vsk = lingering()
    model.shutdown(vsk, 1)
    model.release(vsk)
    assert vsk.packets == [Packet("SHUTDOWN", 2), Packet("SHUTDOWN", 3)]
    vsk = lingering()
    model.shutdown(vsk, 2)
    model.release(vsk)
    assert vsk.packets == [Packet("SHUTDOWN", 3)]


@each
def test_a_peer_that_shut_both_directions_is_reset(model: LingerModel) -> None:
    vsk = lingering(peer_shutdown=SHUTDOWN_MASK)
    model.release(vsk)
    assert vsk.packets == [Packet("RST")]
    assert lingering(peer_shutdown=Shutdown.SEND).peer_shutdown != SHUTDOWN_MASK


@each
def test_the_condition_ends_the_wait(model: LingerModel) -> None:
    vsk = lingering()
    wait = model.release(vsk)
    assert wait is not None
    assert wait.timeout_s == 5
    assert not model.woken(vsk)
    vsk.done, vsk.unsent_bytes = True, 0
    assert model.woken(vsk)


def test_turning_it_off_keeps_the_time_and_a_negative_time_has_no_end() -> None:
    vsk = lingering()
    vsk.setsockopt_linger(0, 9)
    assert (vsk.linger, vsk.lingertime) == (False, 5)
    vsk.setsockopt_linger(1, -1)
    wait = MODELS["merged"].release(
        VsockSock(linger=True, lingertime=vsk.lingertime, unsent_bytes=1)
    )
    assert wait == Wait(WaitsFor.SENT, 0xFFFFFFFF)


def test_the_close_timer_runs_until_the_peer_is_done() -> None:
    vsk = lingering()
    finish_close(vsk)
    assert vsk.close_work
    vsk = lingering(done=True)
    finish_close(vsk)
    assert not vsk.close_work


@pytest.mark.parametrize(
    ("kernel", "probed", "name"),
    [
        ("6.12.95+deb12-amd64", (), "legacy"),
        ("6.15.0", (None, "vsock_release"), "legacy"),
        ("6.16.0-rc1", (), "merged"),
        ("7.3.4", (), "merged"),
        ("10.0", (), "merged"),
        ("6.12.95", ("vsock_linger",), "merged"),
        (None, ("vsock_linger",), "merged"),
    ],
)
def test_the_kernel_or_its_symbol_chooses(
    kernel: str | None, probed: tuple[str | None, ...], name: str
) -> None:
    model = model_of(kernel, probed)
    assert model is not None
    assert model.name == name


def test_an_unknown_kernel_has_no_model() -> None:
    assert model_of(None, ()) is None
    assert model_of("vendor", ("vsock_release",)) is None
