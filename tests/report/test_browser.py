"""The page in a browser: nothing on the console, nothing fetched, nothing wider than a phone."""

from __future__ import annotations

import pytest

from unmix.report.page import write_page

from . import pages


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("report") / "page.html", pages.full()).as_uri()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_quietly_and_fits(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said, fetched = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(address)
    assert said == []
    assert [url for url in fetched if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    sticking = page.evaluate(
        "[...document.querySelectorAll('.panel svg, p, dl, .scroll, pre, figcaption')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert sticking == 0
    page.close()


def test_a_wide_table_scrolls_inside_its_own_box(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    assert page.evaluate("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth + 50)")
    page.close()


def test_figures_take_the_colours_of_the_scheme(browser, address):
    inks = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        inks[scheme] = page.evaluate(
            "[getComputedStyle(document.querySelector('.panel svg text')).fill,"
            " getComputedStyle(document.body).backgroundColor]"
        )
        page.close()
    assert inks == {
        "light": ["rgb(31, 35, 40)", "rgb(255, 255, 255)"],
        "dark": ["rgb(230, 237, 243)", "rgb(15, 19, 24)"],
    }


def test_labels_of_a_figure_do_not_cover_each_other_in_the_browser(browser, address):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    clashes = page.evaluate(
        """() => [...document.querySelectorAll('.panel svg')].flatMap(svg => {
            const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            return boxes.flatMap(([a, p], i) => boxes.slice(0, i).filter(([b, q]) =>
                Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2 &&
                Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4).map(([b]) => a + ' / ' + b));
        })"""
    )
    assert clashes == []
    page.close()
