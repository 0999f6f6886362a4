"""The page in a browser, opened from disk: finding, sorting, stepping, links, hostile names, small screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

from unmix.core.codes import Codes

from .conftest import DEAD, FEATURES, HOSTILE, Case, write

Open = Callable[..., Any]
DESK, PHONE = (1440, 900), (390, 844)

CONTRAST = """() => {
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const paint = (...colours) => {
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.reduce((sum, v, i) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  const back = (node) => getComputedStyle(node).backgroundColor;
  const read = [...document.querySelectorAll('.token, .note, .source, dt, .facts, .count, .index')];
  return read.filter((node) => node.textContent.trim()).map((node) => {
    const paper = back(node.closest('.line[aria-current]') || node.closest('.list') || document.body);
    const both = [paint(paper, getComputedStyle(node).color), paint(paper, back(node))].map(light);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  });
}"""


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Opens an atlas from disk; any error on the console, failed file or network request fails the test."""
    troubles: list[str] = []
    contexts = []

    def opened(case: Case, fragment: str = "", size: tuple[int, int] = DESK, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else troubles.append(r.url))
        page.on("requestfailed", lambda request: troubles.append(request.url))
        page.goto(case.index.as_uri() + fragment)
        page.wait_for_selector("#page h2")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def heading(page: Any, feature: int) -> None:
    page.wait_for_function("f => document.querySelector('#page h2')?.textContent === `Feature ${f}`", arg=feature)


def listed(page: Any) -> list[int]:
    return [int(text) for text in page.locator("#rows .index").all_inner_texts()]


def test_overview_names_the_verdict_and_the_facts(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    assert page.locator("h1").text_content() == text_case.options["title"]
    assert text_case.options["verdict"] in page.locator("#verdict").text_content()
    assert page.locator("dl.about dd").all_text_contents() == ["none", HOSTILE[0]]
    assert "null" not in page.locator("#page").text_content()
    assert page.title() == text_case.options["title"]


def test_only_what_is_seen_of_the_list_is_drawn(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    assert 0 < page.locator("#rows a").count() < 60 < FEATURES
    page.evaluate("document.querySelector('#scroll').scrollTop = 1e6")
    page.wait_for_function("n => document.querySelector(`#rows a[data-f='${n}']`)", arg=FEATURES - 1)
    assert 0 not in listed(page)


def test_a_click_opens_a_feature_and_back_returns(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    page.click("#rows a[data-f='3']")
    heading(page, 3)
    assert page.url.endswith("#f=3")
    assert page.locator("#rows a[aria-current]").get_attribute("data-f") == "3"
    page.go_back()
    page.wait_for_function("document.querySelector('#page h2').textContent === 'Overview'")


def test_marks_on_the_page_are_the_marks_of_the_file(text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=64")
    heading(page, 64)
    first = text_case.read("detail-001")[0]["top"][0]
    item = page.locator("ol.contexts li").first
    told = [float(v) for v in item.locator(".token").evaluate_all("all => all.flatMap(e => e.dataset.value ?? [])")]
    assert told == first[5][1::2]
    assert item.locator(".token").count() == len(first[4])
    assert item.locator(".token.dim").count() == len(first[6])
    assert item.locator(".token.centre").get_attribute("title") == page.locator(".value").first.text_content()
    assert page.locator("ol.contexts li").count() > 20
    assert page.locator(".histogram rect").count() == sum(n > 0 for n in text_case.read("summary")["bins"][64][2])


def test_a_deep_link_scrolls_the_list_there(text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=120")
    heading(page, 120)
    assert 120 in listed(page)
    assert page.locator("#rows a[aria-current]").is_visible()


def test_an_unknown_feature_is_said_to_be_unknown(text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=99999")
    assert "There is no feature 99,999" in page.locator(".notice").text_content()


def test_search_by_number_name_token_and_context(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    page.fill("#search", "77")
    assert listed(page)[0] == 77
    page.press("#search", "Enter")
    heading(page, 77)
    page.fill("#search", "the SEA")
    assert listed(page) == [9]
    page.fill("#search", "harbour")
    summary, tokens = text_case.read("summary"), text_case.read("texts")["tokens"]
    expected = [f for f in range(FEATURES) if any("harbour" in tokens[i] for i in summary["labels"][f])]
    assert page.locator("#count").text_content() == f"{len(expected)} of {FEATURES} features"
    page.check("#deep")
    words = text_case.read("words")
    wider = [f for f in range(FEATURES) if f in expected or any("harbour" in tokens[i] for i in words[f])]
    assert len(wider) > len(expected)
    page.wait_for_function("t => document.querySelector('#count').textContent.startsWith(t)", arg=f"{len(wider)} ")


def test_an_empty_search_says_so_and_can_be_undone(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    page.fill("#search", "<b>no such thing")
    assert "No feature matches" in page.locator(".nothing").text_content()
    assert "<b>no such thing" in page.locator(".nothing").text_content()
    page.click(".nothing button")
    assert listed(page)[:3] == [0, 1, 2]
    page.select_option("#show", "dead")
    page.fill("#search", "the sea")
    assert "left out" in page.locator(".nothing").text_content()


def test_sorting_both_ways_with_missing_values_last(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    rates = text_case.read("summary")["rate"]
    page.select_option("#sort", "rate")
    best = sorted(range(FEATURES), key=lambda f: (-rates[f], f))
    assert listed(page)[:10] == best[:10]
    page.click("#direction")
    assert listed(page)[:10] == sorted(range(FEATURES), key=lambda f: (rates[f], f))[:10]
    page.select_option("#sort", "x0")
    assert listed(page)[:6] == [0, 1, 2, 3, 5, 7]
    page.evaluate("document.querySelector('#scroll').scrollTop = 1e6")
    page.wait_for_function("document.querySelector(`#rows a[data-f='6']`)")
    assert listed(page)[-2:] == [4, 6]
    page.select_option("#sort", "x1")
    assert page.locator("#rows a").count() > 0


def test_filters_for_dead_and_dense(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    page.select_option("#show", "live")
    assert DEAD not in listed(page) and 4 in listed(page)
    page.select_option("#show", "dead")
    assert listed(page) == [DEAD]
    page.select_option("#show", "dense")
    rates = text_case.read("summary")["rate"]
    assert listed(page) == [f for f in range(FEATURES) if rates[f] > 0.1] != []


def test_a_dead_feature_is_shown_as_dead(text_case: Case, visit: Open) -> None:
    page = visit(text_case, f"#f={DEAD}")
    heading(page, DEAD)
    assert "dead" in page.locator(".notice").text_content()
    assert page.locator("ol.contexts, .histogram").count() == 0
    assert "never fires" in page.locator("#rows a[aria-current]").text_content()


def test_keyboard(text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=20")
    heading(page, 20)
    page.keyboard.press("j")
    heading(page, 21)
    page.keyboard.press("ArrowDown")
    heading(page, 22)
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    heading(page, 20)
    page.keyboard.press("/")
    page.keyboard.type("jk7")  # goes into the search, not through the list
    assert page.input_value("#search") == "jk7" and page.url.endswith("#f=20")
    page.keyboard.press("Escape")
    assert page.input_value("#search") == "jk7" and page.locator(".nothing").is_visible()
    page.fill("#search", "")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.wait_for_function("!location.hash.endsWith('f=20')")
    assert page.locator("#page h2").text_content().startswith("Feature ")


def test_steps_follow_the_order_of_the_list(text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=0")
    page.select_option("#sort", "rate")
    order = listed(page)
    page.click(f"#rows a[data-f='{order[0]}']")
    heading(page, order[0])
    assert page.locator(".steps button").first.is_disabled()
    page.click(".steps button:has-text('next')")
    heading(page, order[1])


def test_neighbours_are_links(text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=10")
    heading(page, 10)
    page.click(".aside a[href='#f=11'] >> nth=0")
    heading(page, 11)


def test_a_dot_of_the_map_opens_its_feature(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    feature, x, y = page.evaluate("dots[17]")
    page.locator("#map").click(position={"x": x, "y": y})
    page.wait_for_function("location.hash.startsWith('#f=')")
    near = page.evaluate("([x, y]) => dots.filter(d => Math.hypot(d[1] - x, d[2] - y) < 2).map(d => d[0])", [x, y])
    opened = int(page.url.split("=")[-1])
    assert opened in near and feature in near


def test_hostile_names_stay_text(text_case: Case, visit: Open) -> None:
    page = visit(text_case)
    for feature in (*range(8), 64):
        page.evaluate("f => { location.hash = `f=${f}` }", feature)
        heading(page, feature)
    page.select_option("#sort", "x1")
    page.fill("#search", "<img")
    assert page.locator("#rows a").count() > 0
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, #page script, #list script, .masthead script").count() == 0


def test_a_missing_file_of_details_is_named(vector_case: Case, browser: Any, tmp_path: Any) -> None:
    import shutil

    shutil.copytree(vector_case.index.parent, tmp_path / "atlas")
    (tmp_path / "atlas" / "data" / "detail-000.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "atlas" / "index.html").as_uri() + "#f=1")
    page.wait_for_selector(".notice")
    assert "detail-000.js is missing" in page.locator(".notice").text_content()
    page.close()


def test_images_with_atoms(image_case: Case, visit: Open) -> None:
    page = visit(image_case, "#f=2")
    heading(page, 2)
    assert page.locator("h4").all_text_contents()[:2] == ["Above zero", "Below zero"]
    assert page.locator(".pictures figure").count() > 20
    shown = page.locator(".pictures .picture").first
    assert shown.bounding_box()["width"] == 72 and "crisp" in shown.get_attribute("class")
    assert shown.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    assert page.locator(".heading .picture").evaluate("e => e.style.backgroundImage") == 'url("data/atoms-000.png")'
    assert "digit" in page.locator(".pictures figcaption").first.text_content()


def test_vectors(vector_case: Case, visit: Open) -> None:
    page = visit(vector_case, "#f=2")
    heading(page, 2)
    first = vector_case.read("detail-000")[2]["top"][0]
    assert page.locator(".numbers td").first.text_content() == f"{first[0]:,}"
    assert page.locator("#deep-label").is_hidden()


@pytest.mark.parametrize("which", ["text_case", "image_case", "vector_case"])
@pytest.mark.parametrize("fragment", ["", "#f=3", f"#f={DEAD}"])
def test_nothing_overflows_a_phone(which: str, fragment: str, request: pytest.FixtureRequest, visit: Open) -> None:
    page = visit(request.getfixturevalue(which), fragment, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    rights = page.locator("#page :not(bdi)").evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert max(rights) <= PHONE[0] + 1


def test_the_list_is_a_drawer_on_a_phone(text_case: Case, visit: Open) -> None:
    page = visit(text_case, size=PHONE)
    assert not page.locator("#list").is_visible()
    page.click("#browse")
    page.wait_for_function("document.querySelector('#list').getBoundingClientRect().left === 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    page.click("#rows a[data-f='4']")
    heading(page, 4)
    page.wait_for_function("getComputedStyle(document.querySelector('#list')).visibility === 'hidden'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_tokens_and_notes(scheme: str, text_case: Case, visit: Open) -> None:
    page = visit(text_case, "#f=3", scheme=scheme)
    heading(page, 3)
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 300 and min(ratios) >= 4.5


def test_the_map_of_atoms_is_drawn_and_explained(image_case: Case, visit: Open) -> None:
    page = visit(image_case)
    assert page.locator("#plane").is_hidden()
    page.select_option("#axis", "map")
    assert "principal axes" in page.locator("#plane").text_content()
    places = image_case.read("summary")["map"]
    left = min(range(10), key=lambda f: places[0][f])
    assert page.evaluate("dots.reduce((a, b) => b[1] < a[1] ? b : a)[0]") == left


def test_notes_stand_under_scores_and_pictures_where_a_feature_is_silent(
    image_case: Case, visit: Open, tmp_path: Any
) -> None:
    codes = Codes(image_case.codes.dense().clamp_min(0), None, 10)
    options = {"table": pd.DataFrame({"score": range(10)}), "notes": {"score": [f"chance {f}" for f in range(10)]}}
    case = write(tmp_path / "atlas", codes, image_case.items, image_case.atoms, **options)
    page = visit(case, "#f=3")
    heading(page, 3)
    assert "chance 3" in page.locator(".figures").text_content()
    silent = page.locator(".band").last
    assert silent.locator("h4").text_content().startswith("Silent")
    rows = [int(t.split()[1]) for t in silent.locator("figure").evaluate_all("all => all.map(e => e.title)")]
    assert len(rows) == 5 and (codes.dense()[rows, 3] == 0).all()
