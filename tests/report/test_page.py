"""The page: whole, deterministic, escaped, and honest about what is absent."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from unmix.core.errors import Failure, UsageError
from unmix.report.page import (
    Claims,
    Code,
    DataTable,
    Facts,
    Figure,
    Link,
    Page,
    Paragraph,
    Section,
    anchored,
    beside,
    render,
    write_page,
)
from unmix.report.tables import DASH, columns, shown, si

from . import made_up, pages

HOSTILE = "<script>alert(1)</script>\"'& </title> --> {{ 7 * 7 }} $\\frac{"


class Ids(HTMLParser):
    """Every id, every reference to one, and every tag of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.wanted: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href") and value and value.startswith("#"):
                self.wanted.append(value[1:])
            self.wanted += re.findall(r"url\(#([^)]+)\)", value or "")


def page(*blocks, **given) -> str:
    return render(Page(**{"title": "t", "lead": "", "verdict": "", "sections": [Section("s", blocks)], **given}))


@pytest.fixture(scope="module")
def whole() -> str:
    return render(pages.full())


def test_the_same_page_twice_has_the_same_bytes(whole):
    assert render(pages.full()) == whole


def test_every_id_occurs_once_and_every_reference_has_its_target(whole):
    found = Ids(whole)
    assert len(found.ids) == len(set(found.ids)) > 20
    assert len(found.wanted) > 20
    assert set(found.wanted) <= set(found.ids)


def test_the_same_figure_may_stand_twice_on_a_page():
    svg = '<svg><defs><path id="a"/></defs><use xlink:href="#a"/><g clip-path="url(#a)"/>#a id="a"</svg>'
    found = Ids(text := page(Figure((svg, svg)), Figure(svg)))
    ours = [name for name in found.ids if name.endswith("-a")]
    assert ours == ["f1-1-a", "f1-2-a", "f2-1-a"]
    assert set(found.wanted) <= set(found.ids)
    assert '#a id="a"</svg>' in text, "words are not markup"


def test_the_page_needs_no_network_and_no_script(whole):
    found = Ids(whole)
    assert "script" not in found.tags and "link" in found.tags and "img" not in found.tags
    for name, value in found.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:")), (name, value)
    assert "@import" not in whole and "url(http" not in whole


def test_hostile_strings_are_shown_and_not_run():
    claim = dict.fromkeys(made_up.claims()[0], HOSTILE) | {"verdict": "differs"}
    frame = pd.DataFrame({HOSTILE: [HOSTILE], "x": [1.0]})
    text = page(
        Paragraph(HOSTILE),
        Figure("<svg></svg>", HOSTILE, HOSTILE),
        DataTable(frame, HOSTILE, notes=HOSTILE, labels={"x": HOSTILE}, units={"x": HOSTILE}),
        Facts({HOSTILE: HOSTILE}),
        Claims([claim], HOSTILE),
        Code([HOSTILE]),
        title=HOSTILE,
        lead=HOSTILE,
        verdict=HOSTILE,
        command=HOSTILE,
    )
    found = Ids(text)
    assert "script" not in found.tags
    assert "<script" not in text and "49" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert text.count("&lt;script&gt;") >= 18


def test_words_between_backticks_become_code_and_stay_escaped():
    assert "run <code>unmix trust &lt;b&gt;</code> now" in page(Paragraph("run `unmix trust <b>` now"))


def test_links_lead_to_files_beside_the_page():
    text = page(Link("The <atlas>", "atlas/index.html", "of `h`."))
    assert '<p><a href="atlas/index.html">The &lt;atlas&gt;</a> of <code>h</code>.</p>' in text
    for elsewhere in ("https://a.b/c", "javascript:alert(1)", "//a.b", "../x.html"):
        with pytest.raises(UsageError, match="below the folder"):
            Link("words", elsewhere)


def test_claims_carry_their_verdict_as_a_badge():
    text = page(Claims(made_up.claims()))
    assert '<span class="badge yes">replicates</span>' in text
    assert '<span class="badge no">differs</span>' in text
    assert '<span class="badge open">not comparable</span>' in text
    assert (
        "0.61 to 0.71" in text and "0.558 to 0.584" in text and "0.745" in text and "ours solves l1 exactly" in text
    )


@pytest.mark.parametrize("change", [{"verdict": "yes"}, {"why": None}])
def test_a_claim_without_its_parts_is_refused(change):
    claim = made_up.claims()[0] | change
    if change.get("why", "") is None:
        del claim["why"]
    with pytest.raises(UsageError, match=r"verdict must be|why missing"):
        Claims([claim])


def test_numbers_are_right_aligned_with_units_intervals_and_dashes():
    frame = pd.DataFrame({"name": ["a", None], "mcc": [0.8312, math.nan], "mcc_half": [0.0189, 0.1], "n": [12288, 2]})
    table = DataTable(frame, formats={"mcc": ".2f"}, labels={"mcc": "MCC"}, units={"n": "rows"})
    text = page(table)
    assert "0.83 ± 0.02" in text and "12,288" in text and "mcc_half" not in text
    assert '<th scope="col" class="n">n <span class="unit">rows</span>' in text
    cells = {part.label: part.cells for part in columns(table)}
    assert cells == {"name": ["a", DASH], "MCC": ["0.83 ± 0.02", DASH], "n": ["12,288", "2"]}


def test_one_seed_has_no_interval():
    frame = pd.DataFrame({"mcc": [0.5], "mcc_half": [math.nan]})
    assert columns(DataTable(frame))[0].cells == ["0.500"]


def test_an_empty_table_keeps_its_headings():
    text = page(DataTable(pd.DataFrame({"finder": [], "fvu": []})))
    assert ">finder</th>" in text and "<td" not in text


def test_tables_may_share_formats_and_labels():
    shared = {"x": ".1f", "elsewhere": ".2f"}
    assert columns(DataTable(pd.DataFrame({"x": [1.26]}), formats=shared, labels={"nowhere": "y"}))[0].cells == [
        "1.3"
    ]


def test_formats_that_cannot_be_are_refused():
    frame = pd.DataFrame({"name": ["a"], "x": [1.0]})
    with pytest.raises(UsageError, match=r"'.2f' does not fit column name, which holds 'a'"):
        columns(DataTable(frame, formats={"name": ".2f"}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (12288, "12,288"),
        (0.123456, "0.1235"),
        (None, DASH),
        (math.nan, DASH),
        ([1, 2, 3], "1, 2, 3"),
        ((0.5, 0.75), "0.5 to 0.75"),
        ("text", "text"),
    ],
)
def test_values_as_text(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (999.4, "999"), (999.6, "1k"), (1.61e6, "1.61M"), (3e17, "300P"), (3e20, "3.0e+20")],
)
def test_amounts_with_letters(value, text):
    assert si(value) == text


def test_figures_beside_each_other_keep_panels_captions_and_commands():
    both = beside(Figure("<svg>1</svg>", "One.", "a"), Figure(("<svg>2</svg>", "<svg>3</svg>"), "Two.", "a"))
    assert both == Figure(("<svg>1</svg>", "<svg>2</svg>", "<svg>3</svg>"), "One. Two.", "a")


def test_anchored_renames_only_ids_and_references():
    assert anchored('<g id="x" class="id"/>', "p") == '<g id="p-x" class="id"/>'


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = write_page(tmp_path / "deep" / "page.html", Page("t", "", "", []))
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    before = path.read_bytes()
    with pytest.raises(UsageError):
        write_page(
            path, Page("t", "", "", [Section("s", [DataTable(pd.DataFrame({"x": ["a"]}), formats={"x": "d"})])])
        )
    assert path.read_bytes() == before
    assert [part.name for part in path.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", Page("t", "", "", []))
