"""The files of an atlas: what they say equals the codes, and nothing in them can break out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from unmix.atlas.bundle import CHUNK, STATIC, write_atlas
from unmix.atlas.payload import diverging, png, rounded, script, sheet, shrunk
from unmix.atlas.turned import Turned, companions, nearest
from unmix.atlas.views import ALIKE, PER_DOCUMENT
from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.items import ImageItems, TextItems, VectorItems

from .conftest import DEAD, FEATURES, HOSTILE, Case, read, text_codes, text_items, write


def detail(case: Case, feature: int) -> dict:
    return case.read(f"detail-{feature // CHUNK:03d}")[feature % CHUNK]


def shown(case: Case, feature: int) -> list[list]:
    page = detail(case, feature)
    return page["top"] + [context for band in page["bands"] for context in band[4]]


def test_summary_equals_the_codes(text_case: Case) -> None:
    summary, dense = text_case.read("summary"), text_case.codes.dense()
    assert (summary["rows"], summary["width"]) == tuple(dense.shape)
    assert summary["count"] == (dense != 0).sum(0).tolist()
    for feature in range(FEATURES):
        low, high, bins = summary["bins"][feature]
        fires = dense[:, feature][dense[:, feature] != 0]
        if not len(fires):
            assert summary["rate"][feature] == 0 and bins == []
            assert summary["mean"][feature] is None and summary["peak"][feature] is None
            continue
        assert summary["rate"][feature] == pytest.approx(len(fires) / len(dense), rel=1e-3)
        assert summary["mean"][feature] == pytest.approx(fires.mean().item(), rel=1e-3)
        assert summary["peak"][feature] == pytest.approx(fires.max().item(), rel=1e-3)
        assert sum(bins) == len(fires) and low == 0 and high == summary["peak"][feature]
    assert summary["count"][DEAD] == 0 and summary["count"].count(0) == 1


def test_every_mark_equals_the_code_of_its_row(text_case: Case) -> None:
    items, dense, tokens = text_case.items, text_case.codes.dense(), text_case.read("texts")["tokens"]
    row_of = {int(place): row for row, place in enumerate(items.places)}
    checked = 0
    for feature in (0, 3, 7, 64, 149):
        for row, value, _, centre, ids, marks, without in shown(text_case, feature):
            window = items.window(row)
            assert window[centre] == items.places[row]
            assert [tokens[i] for i in ids] == [items.text(place) for place in window]
            assert value == pytest.approx(dense[row, feature].item(), rel=1e-3)
            told = dict(zip(marks[::2], marks[1::2], strict=True))
            for offset, place in enumerate(window):
                assert (offset in without) == (int(place) not in row_of)
                code = dense[row_of[int(place)], feature].item() if int(place) in row_of else 0.0
                assert told.get(offset, 0.0) == pytest.approx(code, rel=1e-2)
                checked += 1
    assert checked > 1000


def test_the_strongest_rows_come_first_and_nothing_is_shown_twice(text_case: Case) -> None:
    items, dense = text_case.items, text_case.codes.dense()
    for feature in (0, 3, 12, 64, 140):
        top = detail(text_case, feature)["top"]
        values = [context[1] for context in top]
        assert len(top) == 20 and values == sorted(values, reverse=True)
        assert values[0] == pytest.approx(dense[:, feature].max().item(), rel=1e-3)
        spans, readings = [], set()
        for row, *_ in shown(text_case, feature):
            place, window = int(items.places[row]), items.window(row)
            assert not any(place in span for span in spans)
            spans.append(range(int(window[0]), int(window[-1]) + 1))
            near = [p for p in window if place - ALIKE[0] <= p <= place + ALIKE[1]]
            readings.add(tuple(items.stream[near].tolist()))
        assert len(readings) == len(spans)


def test_at_most_three_contexts_of_a_document_unless_there_are_too_few(text_case: Case) -> None:
    documents = Counter(context[2] for context in detail(text_case, 3)["top"])
    assert max(documents.values()) <= PER_DOCUMENT
    alone = detail(text_case, 7)["top"]  # fires in one document of 59 rows only
    assert len({context[2] for context in alone}) == 1 and len(alone) > PER_DOCUMENT


def test_bands_are_the_thirds_of_the_activations(text_case: Case) -> None:
    dense, feature = text_case.codes.dense(), 3
    fires = dense[:, feature][dense[:, feature] != 0].sort(descending=True).values
    bands = detail(text_case, feature)["bands"]
    assert [band[0] for band in bands] == ["high", "middle", "low"]
    for (_, low, high, count, contexts), third in zip(bands, np.array_split(fires.numpy(), 3), strict=True):
        assert count == len(third) and len(contexts) == 5
        assert (low, high) == (pytest.approx(third.min(), rel=1e-3), pytest.approx(third.max(), rel=1e-3))
        assert all(low * 0.999 <= context[1] <= high * 1.001 for context in contexts)


def test_tokens_are_counted_with_share_and_mean(text_case: Case) -> None:
    items, dense, tokens = text_case.items, text_case.codes.dense(), text_case.read("texts")["tokens"]
    words = np.array(items.stream)[items.places]
    for feature in (3, 20):
        for token, count, share, mean in detail(text_case, feature)["common"]:
            mask = torch.from_numpy(words == items.vocabulary.index(tokens[token]))
            values = dense[mask, feature]
            assert count == int((values != 0).sum())
            assert share == pytest.approx(count / int(mask.sum()), rel=1e-2)
            assert mean == pytest.approx(values[values != 0].mean().item(), rel=1e-3)


def test_a_dead_feature_has_no_contexts_but_nearest_atoms(text_case: Case) -> None:
    page = detail(text_case, DEAD)
    assert page["top"] == page["bands"] == page["common"] == page["together"] == []
    assert len(page["near"]) == 8


def test_nearest_atoms_and_companions(text_case: Case) -> None:
    assert detail(text_case, 10)["near"][0] == [11, pytest.approx(1, abs=1e-3)]
    fires = (text_case.codes.dense() != 0).double()
    other, jaccard, lift, both = detail(text_case, 0)["together"][0]
    a, b = fires[:, 0], fires[:, other]
    assert both == int((a * b).sum())
    assert jaccard == pytest.approx(both / float(((a + b) > 0).sum()), rel=1e-2)
    assert lift == pytest.approx(both * len(a) / float(a.sum() * b.sum()), rel=1e-2)


def test_layouts_of_codes_are_turned_alike() -> None:
    dense = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    dense = torch.where(dense > 0.6, dense, torch.zeros(()))
    values, indices = dense.topk(7, dim=1)
    layouts = [Codes(dense, None, 7), Codes(values, indices, 7), Codes(dense, None, 7).ragged()]
    turned = [Turned(codes) for codes in layouts]
    expected = (dense != 0).double()
    for one in turned:
        assert one.counts().tolist() == expected.sum(0).tolist()
        assert np.array_equal(one.together(2, 5), (expected.T @ expected)[2:5].numpy())
        for feature, (rows, found) in enumerate(one.features(0, 7)):
            assert rows.tolist() == dense[:, feature].nonzero()[:, 0].tolist()
            assert found.tolist() == dense[rows, feature].tolist()


def test_a_zero_atom_is_near_nothing() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.6, 0.8]])
    assert nearest(directions, 0, 3, 8) == [[(2, pytest.approx(0.6))], [], [(0, pytest.approx(0.6))]]


def test_features_that_meet_by_chance_are_no_companions() -> None:
    counts = np.array([50, 50, 10])
    found = companions(np.array([50.0, 25.0, 10.0]), 0, counts, 100, 8)
    assert found == [(2, pytest.approx(0.2), pytest.approx(2.0), 10)]


def test_signed_codes_show_both_ends(image_case: Case) -> None:
    dense = image_case.codes.dense()
    page = detail(image_case, 0)
    values = [context[1] for context in page["top"]]
    assert sum(v > 0 for v in values) == sum(v < 0 for v in values) == 10
    assert max(values) == pytest.approx(dense[:, 0].max().item(), rel=1e-3)
    assert min(values) == pytest.approx(dense[:, 0].min().item(), rel=1e-3)
    assert image_case.read("summary")["signed"] is True


def test_pictures_on_the_sheet_are_the_rows(image_case: Case) -> None:
    from PIL import Image

    data = image_case.index.parent / "data"
    pixels, labels = np.asarray(Image.open(data / "rows-000.png")), image_case.read("texts")["tokens"]
    width, height, across = image_case.read("summary")["picture"]
    for row, _, slot, label in shown(image_case, 4):
        y, x = divmod(slot, across)
        assert np.array_equal(
            pixels[y * height : (y + 1) * height, x * width : (x + 1) * width], image_case.items.images[row]
        )
        assert labels[label] == image_case.items.labels[row]
    atom = np.asarray(Image.open(data / "atoms-000.png"))[:8, 8:16].astype(int)
    weights = image_case.atoms[1].reshape(8, 8).numpy()
    strong = np.abs(weights) > 0.5 * np.abs(weights).max()
    assert strong.any()
    assert ((atom[..., 0] > atom[..., 2]) == (weights > 0))[strong].all()


def test_rows_of_equal_activation_are_drawn_at_random_and_it_is_said(tmp_path: Path) -> None:
    dense = torch.zeros(600, 3)
    dense[:400, 0] = 1.0  # 20 of 400
    dense[:12, 1] = 2.0
    dense[100:500, 1] = 0.5  # 12 that are sure, 8 of 400
    dense[:, 2] = torch.arange(600)
    case = write(tmp_path / "a", Codes(dense, None, 3), VectorItems(np.arange(600)), torch.eye(3))
    assert [detail(case, j)["ties"] for j in range(3)] == [[[1, 400]], [[0.5, 400]], []]
    rows = [[number for number, _ in detail(case, j)["top"]] for j in range(3)]
    assert max(rows[0]) > 200 and set(rows[1][:12]) == set(range(12)) and min(rows[1][12:]) >= 100
    assert rows[2] == list(range(599, 579, -1))


def test_equal_pictures_are_shown_once(tmp_path: Path) -> None:
    images = np.repeat(np.arange(5, dtype=np.uint8), 10)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    codes = Codes(torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) + 0.1, None, 2)
    case = write(tmp_path / "a", codes, ImageItems(images), torch.eye(2))
    assert len(shown(case, 0)) == 5
    assert detail(case, 0)["common"] == []


def test_numbers_of_vectors(vector_case: Case) -> None:
    dense = vector_case.codes.dense()
    for number, value in shown(vector_case, 2):
        assert value == pytest.approx(dense[number - 1000, 2].item(), rel=1e-3)


def test_nothing_breaks_out_of_the_scripts(text_case: Case) -> None:
    for path in (text_case.index.parent / "data").glob("*.js"):
        raw = path.read_bytes()
        assert raw.isascii() and not re.search(rb"[<>&]", raw) and raw.count(b"\n") == 1
    texts, summary = text_case.read("texts"), text_case.read("summary")
    assert set(HOSTILE) <= set(texts["tokens"])  # unchanged once they are read
    assert summary["title"] == f"A title {HOSTILE[0]}" and [HOSTILE[1], HOSTILE[0]] in summary["about"]
    for name in STATIC:
        static = (text_case.index.parent / name).read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https?://(?!www\.w3\.org/2000/svg)",
            static,
        )


def test_missing_values_of_the_table_become_null(text_case: Case) -> None:
    summary = text_case.read("summary")
    agreement, text = summary["columns"]
    assert (agreement["name"], agreement["number"]) == ("seed agreement", True)
    assert agreement["values"][4] is None and agreement["values"][6] is None and agreement["values"][0] == 1
    assert text == {"name": HOSTILE[0], "number": False, "values": [None, HOSTILE[1]] * (FEATURES // 2)}
    assert summary["names"][9] == "the sea" and summary["names"][0] == ""


def test_the_same_inputs_give_the_same_bytes(text_case: Case, tmp_path: Path) -> None:
    items = text_items()
    again = write_atlas(
        tmp_path / "again", codes=text_codes(items), items=items, atoms=text_case.atoms, **text_case.options
    )
    first = {p.relative_to(text_case.index.parent): p.read_bytes() for p in text_case.index.parent.rglob("*.*")}
    second = {p.relative_to(again.parent): p.read_bytes() for p in again.parent.rglob("*.*")}
    assert first == second and len(first) == len(STATIC) + 3 + -(-FEATURES // CHUNK)
    other = write(tmp_path / "other", text_case.codes, items, text_case.atoms, **text_case.options, rng=1)
    assert other.read("summary") == text_case.read("summary")
    assert other.read("detail-000") != text_case.read("detail-000")


def test_an_older_atlas_is_replaced_and_other_folders_are_left_alone(vector_case: Case, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    write(atlas, vector_case.codes, vector_case.items, vector_case.atoms)
    write(atlas, vector_case.codes, vector_case.items, vector_case.atoms, verdict="Newer.")
    assert read(atlas / "index.html", "summary")["verdict"] == "Newer."
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something that is not an atlas"):
        write(precious, vector_case.codes, vector_case.items, vector_case.atoms)
    assert [p.name for p in precious.iterdir()] == ["thesis.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["atlas", "precious"]


BAD = {
    "items: 199 items for 200": {"items": VectorItems(np.arange(199))},
    r"atoms: expected \[9, d\]": {"atoms": torch.eye(8)},
    "atoms: atom 3 holds NaN": {"atoms": torch.eye(9).index_fill(0, torch.tensor([3]), torch.nan)},
    "codes: hold NaN": {"codes": Codes(torch.full((200, 9), torch.nan), None, 9)},
    "codes: an atlas needs rows": {"codes": Codes(torch.zeros(0, 9), None, 9)},
    "table: 2 lines for 9 features": {"table": pd.DataFrame({"a": [1, 2]})},
    "contexts: at least 1": {"contexts": 0},
    "atom_images: only for items that are images": {"atom_images": True},
    "atom_images: atoms of 9 values": {"atom_images": True, "items": ImageItems(np.zeros((200, 8, 8), np.uint8))},
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_inputs_are_refused_in_one_line(message: str, vector_case: Case, tmp_path: Path) -> None:
    options = {"codes": vector_case.codes, "items": vector_case.items, "atoms": vector_case.atoms, **BAD[message]}
    with pytest.raises(UsageError, match=message) as caught:
        write_atlas(tmp_path / "atlas", title="", subtitle="", verdict="", **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_one_row_one_feature_and_single_token_documents(tmp_path: Path) -> None:
    items = TextItems(np.array([0, 0]), np.array([0, 1, 2]), np.array([0, 1]), ("",), ("a", "b"))
    case = write(tmp_path / "a", Codes(torch.tensor([[2.0], [0.0]]), None, 1), items, torch.ones(1, 1))
    page = detail(case, 0)
    assert page["top"] == [[0, 2, 0, 0, [0], [0, 2], []]] and page["bands"] == page["near"] == []


def test_inputs_are_not_modified(vector_case: Case, tmp_path: Path) -> None:
    before = [t.clone() for t in (vector_case.codes.values, vector_case.codes.indices, vector_case.atoms)]
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    write(tmp_path / "a", vector_case.codes, vector_case.items, vector_case.atoms)
    after = (vector_case.codes.values, vector_case.codes.indices, vector_case.atoms)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002


def test_a_real_size_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stream = rng.zipf(1.3, 60000).clip(0, 19999).astype(np.int64)
    items = TextItems(
        stream, np.arange(0, 60001, 200), np.arange(60000), tuple(f"w{i}" for i in range(20000)), ("t",) * 300
    )
    values = torch.from_numpy(rng.gamma(2, 1, (60000, 8)).astype(np.float32))
    indices = torch.from_numpy(rng.integers(0, 256, (60000, 8)))
    index = write_atlas(
        tmp_path / "a", title="", subtitle="", verdict="", codes=Codes(values, indices, 256), items=items,
        atoms=torch.randn(256, 16, generator=torch.Generator().manual_seed(0)),
    )  # fmt: skip
    size = sum(path.stat().st_size for path in index.parent.rglob("*.*"))
    assert size / 256 * 1536 < 25e6


def test_script_refuses_nan_and_rounding_removes_it() -> None:
    with pytest.raises(ValueError, match="JSON"):
        script("x", float("nan"))
    assert [rounded(v) for v in (float("nan"), -np.inf, 2.0, 1 / 3, -0.0)] == [None, None, 2, 0.3333, 0]
    assert script("x", "</script>\u2028") == 'atlasData("x","\\u003c/script\\u003e\\u2028");\n'


def test_png_sheet_shrink_and_palette() -> None:
    from io import BytesIO

    from PIL import Image

    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(np.asarray(Image.open(BytesIO(png(pixels)))), pixels)
    assert np.array_equal(np.asarray(Image.open(BytesIO(png(pixels[..., 0])))), pixels[..., 0])
    ones = np.arange(1, 4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert sheet(ones, 2).tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 0, 0]] * 2
    assert shrunk(np.full((1, 200, 100), 7, np.uint8)).shape == (1, 66, 33)
    assert shrunk(np.full((1, 200, 100, 3), 7, np.uint8)).max() == 7
    low, zero, high = diverging(np.array([[[-2.0, 0.0, 1.0]]]))[0, 0].astype(int)
    assert low[2] > low[0] and high[0] > high[2] and zero.tolist() == [247] * 3
    assert diverging(np.zeros((1, 2, 2))).tolist() == np.full((1, 2, 2, 3), 247).tolist()
    assert diverging(np.array([[[[-1.0, 0.0, 1.0]]]])).tolist() == [[[[1, 128, 255]]]]
