"""Records of adjacent pages are one, whenever they are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import judge

from replay.engine.kernel import layout as L
from replay.engine.runs import runs

rows = st.lists(
    st.tuples(
        st.sampled_from([101, 104]), st.integers(0, 2), st.integers(0, 1), st.integers(0, 9),
        st.integers(0, 50), st.sampled_from([L.NULL, 60, 70]),
    ),
    max_size=40,
)  # fmt: skip


def records(made: list[tuple[int, int, int, int, int, int]]) -> np.ndarray:
    """One page each, no page of a cause twice."""
    out = []
    for kind, group, undecided, page, since, until in dict.fromkeys(made):
        row = np.zeros(L.W_COLS, np.int64)
        row[L.W_KIND], row[L.W_GROUP], row[L.W_P0], row[L.W_P1] = kind, group, page, page + 1
        row[L.W_SEV] = L.UNDECIDED if undecided else L.ERROR
        row[L.W_FROM], row[L.W_UNTIL], row[L.W_SEQ3] = since, until, since
        if not any(
            (
                row[[L.W_KIND, L.W_GROUP, L.W_P0, L.W_SEV]]
                == o[[L.W_KIND, L.W_GROUP, L.W_P0, L.W_SEV]]
            ).all()
            for o in out
        ):
            out.append(row)
    return np.array(out, np.int64).reshape(-1, L.W_COLS)


@settings(deadline=None, max_examples=300)
@given(rows, st.integers(0, 40))
def test_some_first_and_all_later_is_all_at_once(
    made: list[tuple[int, int, int, int, int, int]], cut: int
) -> None:
    every = records(made)
    pieces = runs(np.concatenate([runs(every[:cut]), every[cut:]]))
    whole = runs(every)
    assert sorted(pieces.tolist()) == sorted(whole.tolist())
    decided = whole[whole[:, L.W_SEV] != L.UNDECIDED]
    pages = int((decided[:, L.W_P1] - decided[:, L.W_P0]).sum())
    assert pages == int((every[:, L.W_SEV] != L.UNDECIDED).sum())
    undecided = whole[whole[:, L.W_SEV] == L.UNDECIDED]
    assert len(np.unique(undecided[:, [L.W_KIND, L.W_GROUP]], axis=0)) == len(undecided)


def test_a_replay_that_joins_early_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n3us vmm private 0x0+4M\n"
    calls = [
        f"{10 + 40 * i}us vmm map {i * 65536:#x}+64K each=4K\n" for i in range(20)
    ]  # private memory is mapped
    late = judge(setup + "".join(calls) + "5ms vmm run", tmp_path)
    monkeypatch.setattr("replay.engine.engine.MOST_WAITING", 4)
    assert judge(setup + "".join(calls) + "5ms vmm run", tmp_path) == late
    assert late["TK103"].findings
