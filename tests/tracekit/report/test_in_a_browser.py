"""The page in headless Chromium: nothing goes wrong, nothing leaves it, and its parts work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from judging import events_of

from tracekit.cli import main
from tracekit.store import Manifest, write_events

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    (c for n in ("chromium", "chromium-browser", "google-chrome") if (c := shutil.which(n))), None
)
DATA = Path(__file__).parents[2] / "data" / "traces"
RECORDINGS = {
    "buggy": ("kvm/trace-fmt-default", "7.3.4-tracekit-lab"),
    "clean": ("kvm/trace-kvm-none-correct", "7.3.4-tracekit-lab"),
    "vsock": ("vsock/trace-vsock", "6.12.95+deb12-amd64"),
}
NAMES = ("demo", "buggy", "clean", "loss", "vsock", "hostile")
EVIL = "</script><img src=x onerror=alert(1)><svg onload=alert(2)>\x1b[2J\u202e"
LOSSY = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  map 0x100000+2M each=4K
    9us   vmm  private 0x100000+2M
    lost cpu0 44us..50us
    60us  vmm  run
    lost cpu1 70us..75us
    90us  end
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, each made by the command."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("pages")
    assert main(["demo", "-o", str(folder)]) == 0
    (folder / "report.html").rename(folder / "demo.html")
    traces = {}
    for name, (place, kernel) in RECORDINGS.items():
        traces[name] = folder / f"{name}.parquet"
        recording, probes = DATA / f"{place}-{kernel}.dat", f"dynamic_events-{kernel}.txt"
        options = ["--probes", str(recording.parent / probes), "-o", str(traces[name])]
        assert main(["import", str(recording), *options]) == 0
    traces["loss"] = folder / "loss.parquet"
    write_events(traces["loss"], events_of(LOSSY))
    traces["hostile"] = folder / "hostile.parquet"
    named = [replace(e, comm=EVIL) for e in events_of(LOSSY.replace("lost ", "# "))]
    write_events(traces["hostile"], named, Manifest(host=EVIL, kernel=EVIL))
    for name, trace in traces.items():
        more = ["--linger-model", "merged"] if name == "vsock" else []
        assert main(["report", str(trace), "-o", str(folder / f"{name}.html"), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, folder: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page named by the parameter; whatever it complains about or asks for fails the test."""
    name, width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: complaints.append(m.text))
    page.on("dialog", lambda d: complaints.append(d.message))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("request", lambda r: requests.append(r.url))
    url = (folder / f"{name}.html").as_uri()
    page.goto(url)
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    yield page
    context.close()
    assert complaints == []
    assert requests == [url]


WIDE, NARROW = (1280, "light"), (390, "dark")


def looks(*names: str, at: tuple[tuple[int, str], ...] = (WIDE,)) -> pytest.MarkDecorator:
    """The page at desk width and light, or as ``at`` says."""
    both = [(n, w, s) for n in names for w, s in at]
    return pytest.mark.parametrize(
        "opened", both, indirect=True, ids=lambda p: "-".join(map(str, p))
    )


@looks(*NAMES, at=(WIDE, NARROW))
def test_it_opens_without_a_complaint_and_nothing_is_wider_than_the_window(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    charts = opened.locator("figure.chart")
    assert charts.count() >= 1
    for i in range(charts.count()):
        painted = (
            charts.nth(i)
            .locator("canvas")
            .evaluate(
                "c => new Set(new Uint32Array(c.getContext('2d')"
                ".getImageData(0, 0, c.width, c.height).data.buffer)).size"
            )
        )
        assert painted > 2


@looks("buggy", "vsock", at=(NARROW,))
def test_what_scrolls_can_be_reached_by_keyboard_and_names_say_what_is_seen(opened: Page) -> None:
    scrolling = opened.evaluate(
        """() => [...document.querySelectorAll('*')].filter((e) =>
            e.scrollWidth > e.clientWidth + 1
            && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
        ).map((e) => [
            e.tagName + '.' + e.className,
            e.tabIndex >= 0 || !!e.querySelector('a[href], button, [tabindex="0"]'),
        ])"""
    )
    assert scrolling
    assert [what for what, reachable in scrolling if not reachable] == []
    unlike = opened.evaluate(
        """() => [...document.querySelectorAll('button[aria-label], a[aria-label]')].filter((e) =>
            /\\w/.test(e.innerText) && !e.getAttribute('aria-label').includes(e.innerText.trim())
        ).map((e) => e.innerText)"""
    )
    assert unlike == []


@looks("hostile")
def test_a_name_with_markup_is_shown_and_nothing_else(opened: Page) -> None:
    assert opened.locator("img").count() == 0
    assert opened.locator("[onload], [onerror]").count() == 0
    assert "</script><img" in opened.locator("#findings").inner_text()


@looks("buggy")
def test_a_click_sorts_and_a_choice_filters(opened: Page) -> None:
    table = opened.locator("#checks table")

    def codes() -> list[str]:
        return table.locator("tbody tr td:first-child b").all_inner_texts()

    before = codes()
    head = table.locator("thead th").filter(has_text="findings")
    for order in ("ascending", "descending"):
        head.locator("[role=button]").first.click()
        table.locator(f"thead th[aria-sort={order}]").wait_for()
    counts = [
        int(v or "0")
        for v in table.locator("tbody tr td:nth-child(3)").evaluate_all(
            "cells => cells.map(c => c.dataset.order)"
        )
    ]
    assert counts == sorted(counts, reverse=True) != []
    assert sorted(codes()) == before
    opened.locator("#checks select").select_option("violated")
    rows = table.locator("tbody tr")
    playwright.expect(rows).to_have_count(2)
    assert set(codes()) == {"TK101", "TK103"}
    opened.locator("#checks select").select_option("")
    opened.locator("#checks input[type=search]").fill("linger")
    playwright.expect(rows).to_have_count(3)
    assert set(codes()) == {"TK301", "TK302", "TK303"}


@looks("buggy", at=(NARROW,))
def test_the_keyboard_sorts_and_walks_a_chart(opened: Page) -> None:
    table = opened.locator("#checks table")
    head = table.locator("thead th").first
    head.locator("[tabindex='0']").first.focus()
    opened.keyboard.press("Enter")
    table.locator("thead th:first-child[aria-sort=ascending]").wait_for()
    plot = opened.locator("#memory .plot")
    plot.focus()
    opened.keyboard.press("ArrowRight")
    first = opened.locator("#memory .readout").inner_text()
    assert " s: [0x" in first
    opened.keyboard.press("ArrowUp")
    opened.keyboard.press("ArrowLeft")
    playwright.expect(opened.locator("#memory .readout")).not_to_have_text(first)
    opened.keyboard.press("+")


@looks("demo")
def test_the_switch_turns_light_into_dark_and_back(opened: Page) -> None:
    def shade() -> str:
        return str(opened.evaluate("getComputedStyle(document.body).backgroundColor"))

    before = shade()
    opened.locator("#theme").click()
    assert shade() != before
    opened.locator("#theme").click()
    assert shade() == before


@looks("loss")
def test_loss_is_drawn_where_it_happened(opened: Page) -> None:
    assert opened.locator("#loss tbody tr").count() == 2
    colours = opened.locator("#rates canvas").first.evaluate(
        """c => {
            const style = getComputedStyle(document.documentElement);
            const shade = style.getPropertyValue('--c-loss').trim();
            const want = [1, 3, 5].map((i) => parseInt(shade.slice(i, i + 2), 16));
            const { width, height } = c;
            const { data } = c.getContext('2d').getImageData(0, 0, width, height);
            const near = (i) => data[i + 3] > 120
                && want.every((v, j) => Math.abs(data[i + j] - v) < 40);
            const at = [];
            for (let x = 0; x < width; x += 1) {
                for (let y = 20; y < height - 60; y += 1) {
                    if (near(4 * (y * width + x))) { at.push(x / width); break; }
                }
            }
            return at;
        }"""
    )
    left = min(colours)
    assert 0.4 < left < 0.62
    assert 0.7 < max(colours) < 0.9


@looks("vsock")
def test_every_socket_has_a_timeline(opened: Page) -> None:
    rows = opened.locator("#sockets tbody tr")
    assert rows.count() >= 11
    assert opened.locator("#sockets tbody svg").count() == rows.count()
    opened.locator("#sockets select").last.select_option("TK302")
    assert 0 < rows.count() < 11
