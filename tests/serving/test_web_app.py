"""The web app in Debian's Chromium: every view does its work, by keyboard too, and a check of accessibility finds
nothing serious in light or dark, on a desk or a phone. Skipped where Chromium or the built app is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palate.serving.pages import BUILT
from tests.serving.running import running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PLACES = {
    "reader": "/reader?run=text-cosine&user=r0003&words=a+voyage+at+sea",
    "compare": "/compare?user=r0003&with=item-knn&with=sasrec",
    "leaderboard": "/leaderboard",
    "catalogue": "/catalogue?run=tiger&q=the",
    "item": "/catalogue?run=tiger&item=b003",
    "new item": "/catalogue?run=text-cosine&new=1",
    "runs": "/runs?fit=sasrec",
}
WAIT = 60_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(not (BUILT / "index.html").is_file(), reason="the web app is not built: make web"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def address(runs: Path, here: Path) -> Iterator[str]:
    """A server with two measured runs and two that were not; its fits are those runs and one that is learning."""
    from palate.experiment import report_of
    from palate.runs import FittedRun

    names = ["item-knn", "sasrec", "text-cosine", "tiger"]
    for name in names:
        shutil.copytree(runs / name, here / name)
    for name in names[:2]:
        report_of(FittedRun.open(here / name))
    log = here / "growing" / "seed-0-training" / "log.jsonl"
    log.parent.mkdir(parents=True)
    plan = {"system": "sasrec", "data": "world", "config": {"training": {"epochs": 20}}}
    (here / "growing" / "plan.json").write_text(json.dumps(plan))
    log.write_text('{"step": 4, "at": 1.0, "epoch": 1, "loss": 5.5, "seconds": 1.0}\n')
    with running([here / name for name in names], here / "s.sqlite") as (_, where):
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="the browser tests need pip install playwright")
    with sync.sync_playwright() as play:
        sync.expect.set_options(timeout=WAIT)
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@contextmanager
def page_in(browser: Any, address: str, *, size: str = "desk", dark: bool = False) -> Iterator[Any]:
    """A page whose console must stay silent and that may ask this server only."""
    context = browser.new_context(
        base_url=address, viewport=SIZES[size], color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    context.set_default_timeout(WAIT)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda problem: said.append(str(problem)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        yield page
    finally:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


def settle(page: Any) -> None:
    """Wait until nothing is waited for."""
    from playwright.sync_api import expect

    page.locator("h1").first.wait_for()
    expect(page.locator(".waiting, [aria-busy=true]")).to_have_count(0, timeout=WAIT)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_view_has_a_serious_fault_of_accessibility(browser: Any, address: str, size: str, dark: bool) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make web")
    script = AXE.read_text(encoding="utf-8")
    found = []
    with page_in(browser, address, size=size, dark=dark) as page:
        for name, place in PLACES.items():
            page.goto(place)
            settle(page)
            # Run beside the page's own scripts, as a tool of the browser: the policy of the page lets no other in.
            page.evaluate(script)
            checked = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
            found += [
                f"{name}: {one['id']}: {one['nodes'][0]['html'][:160]}"
                for one in checked if one["impact"] in ("serious", "critical")
            ]  # fmt: skip
            wider = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wider > 0:
                found.append(f"{name}: {wider} pixels wider than the screen")
    assert found == []


def test_a_reader_is_picked_and_changed_by_keyboard_and_the_answer_follows(browser: Any, address: str) -> None:
    from playwright.sync_api import expect

    with page_in(browser, address) as page:
        page.goto("/reader?run=item-knn")
        settle(page)
        page.get_by_role("combobox", name="Reader of the data").focus()
        page.keyboard.type("r0003")
        page.keyboard.press("Enter")  # before the list of what was typed is there
        expect(page.get_by_role("heading", name="What r0003 would get")).to_be_visible()
        settle(page)
        page.get_by_role("combobox", name="Reader of the data").fill("r001")
        offered = page.locator("li[role=option]:visible")  # and no <option> of a choice
        expect(offered).to_have_count(10)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(page.locator("li[aria-selected=true]")).to_contain_text("r0011")
        page.keyboard.press("Escape")
        expect(offered).to_have_count(0)
        first = page.locator(".card-title").first.inner_text()
        expect(page.locator(".why").first).to_be_visible()
        assert page.locator(".card img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 240

        page.locator(".card").first.get_by_role("button", name="Add to history").press("Enter")
        expect(page.locator(".history li").first).to_contain_text(first)
        expect(page.locator(".card-title").first).not_to_have_text(first)
        expect(page.get_by_text("no longer as r0003")).to_be_visible()
        expect(page.locator(".moved").first).to_be_visible()

        page.get_by_role("button", name="Filter", exact=True).press("Enter")
        page.get_by_label("from").first.fill("1900")
        expect(page.get_by_role("button", name=re.compile("Remove the filter year"))).to_be_visible()
        settle(page)
        years = [int(text.split("·")[-1]) for text in page.locator(".card .muted.small").all_inner_texts()]
        assert years
        assert min(years) >= 1900

        hidden = page.locator(".card-title").first.inner_text()
        page.get_by_role("button", name=f"Not {hidden}", exact=True).click()
        expect(page.locator(".card-title").filter(has_text=hidden)).to_have_count(0)


def test_words_change_the_answer_live(browser: Any, address: str) -> None:
    from playwright.sync_api import expect

    with page_in(browser, address) as page:
        page.goto("/reader?run=sasrec&user=r0003")
        settle(page)
        expect(page.get_by_label("In words")).to_be_disabled()
        page.get_by_role("button", name=re.compile("which reads words")).click()
        settle(page)
        before = page.locator(".card-title").all_inner_texts()
        page.get_by_label("In words").fill("a detective solves a murder")
        expect(page.locator(".why").first).to_contain_text("the words")
        settle(page)
        page.get_by_role("button", name="And its text?").first.click()
        expect(page.locator(".why").first).to_contain_text("“")  # a part of the title's text
        assert page.locator(".card-title").all_inner_texts() != before


def test_runs_stand_side_by_side_and_disagreements_are_marked(browser: Any, address: str) -> None:
    with page_in(browser, address) as page:
        page.goto("/compare?user=r0003&with=item-knn&with=sasrec")
        settle(page)
        lists = [column.locator(".line-title a").all_inner_texts() for column in page.locator(".column").all()]
        alone = {title for a, b in (lists, lists[::-1]) for title in a if title not in b}
        assert set(page.locator(".alone .line-title a").all_inner_texts()) == alone
        assert f"{len(set(lists[0]) & set(lists[1])) or 'No title'}" in page.locator(".finding").inner_text()
        page.get_by_text("TIGER", exact=True).click()
        page.locator(".column").nth(2).wait_for()


def test_the_leaderboard_says_what_was_found(browser: Any, address: str) -> None:
    with page_in(browser, address) as page:
        page.goto("/leaderboard")
        settle(page)
        assert "NDCG@10" in page.locator(".finding").first.inner_text()
        assert page.locator(".interval .whisker").count() == 2
        page.get_by_text("R@10", exact=True).click()
        assert "R@10" in page.locator(".finding").first.inner_text()
        page.get_by_label("For whom and for what").select_option("cold-items-among-cold")
        assert "chance alone" in page.locator(".intervals").inner_text()
        assert "Not measured: text-cosine, tiger" in page.locator("main").inner_text()


@pytest.mark.parametrize(("place", "chart"), [("/leaderboard", ".scatter"), ("/runs?fit=sasrec", ".curve svg")])
def test_charts_are_drawn_anew_when_a_phone_is_turned(browser: Any, address: str, place: str, chart: str) -> None:
    from playwright.sync_api import expect

    with page_in(browser, address, size="phone") as page:
        page.goto(place)
        settle(page)
        drawn = page.locator(chart).first
        upright = drawn.get_attribute("viewBox")
        page.set_viewport_size({"width": 844, "height": 390})
        expect(drawn).not_to_have_attribute("viewBox", upright)
        page.set_viewport_size(SIZES["phone"])
        expect(drawn).to_have_attribute("viewBox", upright)


def test_an_item_is_found_and_one_is_added_by_its_text(browser: Any, address: str) -> None:
    from playwright.sync_api import expect

    with page_in(browser, address) as page:
        page.goto("/catalogue?run=tiger")
        settle(page)
        page.get_by_label("Search titles, authors and texts").fill("foundation")
        expect(page.locator(".tile-title").first).to_contain_text("Foundation")
        page.locator(".tile").first.click()
        settle(page)
        for space in ("Reads alike", "Named alike", "Met together"):
            expect(page.get_by_role("region", name=space).locator("li").first).to_be_visible()
        page.goto("/catalogue?run=text-cosine&new=1")
        page.get_by_label("Title").fill("The Whale Road")
        page.get_by_label("What it is about").fill("A captain hunts a whale across the ocean; storms and islands.")
        page.get_by_role("button", name="Add it and see who would get it").click()
        expect(page.get_by_text("recommended from now on").first).to_be_visible()
        expect(page.get_by_text(re.compile("would find it among their best 10"))).to_be_visible()


def test_a_curve_grows_while_a_fit_learns(browser: Any, address: str, here: Path) -> None:
    from playwright.sync_api import expect

    with page_in(browser, address) as page:
        page.goto("/runs?fit=growing")
        expect(page.get_by_text("epoch 1 of at most 20")).to_be_visible()
        with (here / "growing" / "seed-0-training" / "log.jsonl").open("a") as stream:
            stream.write('{"step": 8, "at": 2.0, "epoch": 2, "loss": 4.5}\n')
            stream.write('{"step": 8, "at": 2.0, "epoch": 2, "valid": 0.2}\n')
        expect(page.get_by_text("epoch 2 of at most 20")).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("NDCG@10 on validation"))).to_be_visible()


class _Answers:
    """What the page's requests meet, by the mood of the moment: one handler for good, as taking one away races with the
    requests that it holds."""

    def __init__(self) -> None:
        self.mood = "gone"
        self.held: list[Any] = []

    def __call__(self, route: Any) -> None:
        if self.mood == "gone":
            route.abort()
        elif self.mood == "busy":
            said = {"error": "too many wait", "code": "busy"}
            route.fulfill(status=429, headers={"Retry-After": "1"}, json=said)
        elif self.mood == "slow":
            self.held.append(route)
        else:
            route.continue_()

    def go_on(self) -> None:
        self.mood = "there"
        for route in self.held:
            route.continue_()


def test_failures_are_said_and_mended_by_asking_again(browser: Any, address: str) -> None:
    """The server is gone, then busy, then there; nobody reloads the page. Its console tells of the first two."""
    from playwright.sync_api import expect

    context = browser.new_context(base_url=address, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(WAIT)
    answer = _Answers()
    page.route("**/v1/recommend", answer)
    page.goto("/reader?run=item-knn&user=r0003")
    alarm = page.get_by_role("alert")
    expect(alarm).to_contain_text("The server does not answer")
    answer.mood = "busy"
    page.get_by_role("button", name="Try again").click()
    expect(alarm).to_contain_text("Asking again by itself")
    answer.mood = "there"
    expect(page.locator(".card-title").first).to_be_visible()
    expect(alarm).to_have_count(0)
    answer.mood = "slow"
    page.route("**/v1/items?*", answer)
    page.goto("/catalogue?run=item-knn")
    expect(page.get_by_role("status").first).to_contain_text("Loading")
    answer.go_on()
    expect(page.locator(".tile").first).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")
    context.close()


def test_a_server_with_one_run_that_was_never_measured(browser: Any, runs: Path, tmp_path: Path) -> None:
    """Every view says what is not there, and has its heading."""
    shutil.copytree(runs / "item-knn", tmp_path / "item-knn", ignore=shutil.ignore_patterns("reports"))
    with running([tmp_path / "item-knn"], tmp_path / "s.sqlite") as (_, where), page_in(browser, where) as page:
        for place, said in (
            ("/leaderboard", "palate evaluate"),
            ("/compare?user=r0003", "a comparison needs two"),
            ("/catalogue?new=1", "No run that is served can take a new item"),
            ("/catalogue?q=nothingatall", "Nothing found"),
            ("/reader", "Why: there is no history."),
        ):
            page.goto(place)
            settle(page)
            assert page.locator("h1").count() == 1, place
            assert said in page.locator("main").inner_text(), place
        page.locator(".card").first.get_by_role("button", name="Add to history").click()
        page.get_by_text("Why: without its only event a history says nothing.").wait_for()


def test_all_of_a_view_is_reached_by_the_tab_key(browser: Any, address: str) -> None:
    """What the keyboard meets, in order, is every link, button and field that is shown, and each shows that it is."""
    within = "a[href], button:not([disabled]), input:not([disabled]), select:not([disabled]), summary"
    shown = f"() => [...document.querySelectorAll('{within}')].filter((one) => one.checkVisibility()).length"
    mark = """() => { const one = document.activeElement; const style = getComputedStyle(one);
      const ring = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
      const first = !one.dataset.met; one.dataset.met = 'yes'; return [one.tagName, first, ring]; }"""
    with page_in(browser, address) as page:
        for place in ("/leaderboard", "/catalogue?run=tiger&item=b003"):
            page.goto(place)
            settle(page)
            wanted, met = page.evaluate(shown), 0
            for _ in range(3 * wanted):
                page.keyboard.press("Tab")
                name, first, ring = page.evaluate(mark)
                if name == "BODY" or not first:
                    break
                assert ring, page.evaluate("() => document.activeElement.outerHTML")
                met += 1
            assert met >= wanted - page.locator("input[type=radio]:not(:checked)").count(), place


def test_a_server_with_tokens_asks_for_one(browser: Any, runs: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    from palate.serving.auth import Tokens

    tokens = Tokens.of({"read-token-0123456789": "read"})
    with running([runs / "item-knn"], tmp_path / "s.sqlite", tokens=tokens) as (_, where):
        context = browser.new_context(base_url=where)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto("/catalogue")
        page.get_by_label("Token").fill("a-wrong-token-0123456789")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_text("not one of this server")).to_be_visible()
        page.get_by_label("Token").fill("read-token-0123456789")
        page.get_by_role("button", name="Enter").click()
        settle(page)
        assert page.locator(".tile img").first.evaluate("image => image.src").startswith("blob:")
        context.close()
