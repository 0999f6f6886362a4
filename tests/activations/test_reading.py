"""Which axes, run, tokens and places of a layer's output become rows: known, said by the user, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unmix.activations.axes import Layout
from unmix.activations.hooks import layer_of, quiet
from unmix.activations.inputs import inputs_of
from unmix.activations.reading import Reading, find_reading, run_to, tell_rounding
from unmix.core.errors import Notice, UsageError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Does(nn.Module):
    """A module that does what a function of itself and x says; its layers are given by name."""

    def __init__(self, does: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.does = does
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.does(self, x)


def rows_of(model: nn.Module, x: torch.Tensor, layer: str = "", **options: Any) -> tuple[Reading, torch.Tensor]:
    """The reading, and rows of all data; the data are taken from a batch of all."""
    inputs = inputs_of(x)
    module = layer_of(model, layer) if layer else model
    with quiet(model):
        reading, _ = find_reading(model, module, lambda count: inputs.some(count, model), layer, **options)
        whole = inputs.batch(0, len(inputs), model)
        return reading, reading.rows(run_to(model, module, whole, layer, reading.output, reading.call))


IMAGES, MAPS, TOKENS, SERIES = drawn(4, 3, 8, 12), (6, 5), drawn(4, 9, 6), drawn(4, 6, 9)


def convolution(**more: nn.Module) -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(3, 6, 4, 4), "linear": nn.Linear(6, 5), **more}


def last(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.linear(m.conv(x).permute(0, 2, 3, 1))


@pytest.fixture(autouse=True)
def drawing() -> Iterator[None]:
    """Modules are made here; what they draw leaves the global state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


KNOWN: dict[str, tuple[Callable[[], nn.Module], str, torch.Tensor, str]] = {
    "convolution": (lambda: Does(last, **convolution()), "conv", IMAGES, "bchw"),
    "linear on maps": (lambda: Does(last, **convolution()), "linear", IMAGES, "bhwc"),
    "block around it": (lambda: Does(last, **convolution()), "", IMAGES, "bhwc"),
    "norm of channels last": (
        lambda: Does(lambda m, x: m.norm(m.conv(x).permute(0, 2, 3, 1)), **convolution(norm=nn.LayerNorm(6))),
        "norm",
        IMAGES,
        "bhwc",
    ),
    "activation after a convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        "2",
        IMAGES,
        "bchw",
    ),
    "block with a shortcut": (
        lambda: Does(lambda m, x: (m.conv(x) + m.bn(m.conv(x))).relu(), **convolution(bn=nn.BatchNorm2d(6))),
        "",
        IMAGES,
        "bchw",
    ),
    "convolution in time": (lambda: nn.Conv1d(6, 7, 3), "", SERIES, "bct"),
    "video": (lambda: nn.Conv3d(2, 5, 1), "", drawn(3, 2, 4, 3, 3), "bcthw"),
    "tokens": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), "linear1", TOKENS, "btc"),
    "recurrent": (lambda: nn.GRU(6, 5, batch_first=True), "", TOKENS, "btc"),
    "tokens first": (
        lambda: Does(lambda m, x: m.layer(x.transpose(0, 1)), layer=nn.TransformerEncoderLayer(6, 2, 8)),
        "layer",
        TOKENS,
        "tbc",
    ),
    "rows": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(54, 3)), "", TOKENS, "bc"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_axes_that_are_known(name: str) -> None:
    make, layer, x, layout = KNOWN[name]
    model = make()
    reading, rows = rows_of(model, x, layer)
    assert reading.layout == layout and len(rows) == len(x)
    h = run_to(model.eval(), layer_of(model, layer) if layer else model, x, layer, reading.output, 0)
    places = tuple(axis for axis, letter in enumerate(layout) if letter not in "bc")
    wanted = h.mean(places) if places else h
    torch.testing.assert_close(rows, wanted.detach())


ASKED: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, str, dict[str, str]]] = {
    "maps of unknown make": (
        lambda: Does(lambda m, x: x * 2),
        IMAGES,
        "layout=bcthw or|layout=bchw or layout=bhcw or layout=bhwc",
        {"bchw": "(2, 3)", "bhwc": "(1, 2)"},
    ),
    "tokens or time": (
        lambda: Does(lambda m, x: x * 2),
        TOKENS,
        "layout=bct or layout=btc",
        {"btc": "1", "bct": "2"},
    ),
    "as high as it has channels": (
        lambda: Does(lambda m, x: m.conv(x) + 1, conv=nn.Conv2d(3, 8, 1)),
        IMAGES,
        "layout=bchw",
        {"bchw": "(2, 3)"},
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_axes_that_are_asked_for(name: str) -> None:
    make, x, wanted, answers = ASKED[name]
    model = make()
    with pytest.raises(UsageError, match=wanted):
        rows_of(model, x)
    for layout, axes in answers.items():
        reading, rows = rows_of(model, x, layout=layout)
        assert reading.layout == layout
        torch.testing.assert_close(rows, model(x).mean(eval(axes)).detach())
    with pytest.raises(UsageError, match=r"layout=cb.*: layer  gives"):
        rows_of(model, x, layout={3: "cbt", 4: "cbhw"}[x.ndim])
    for bad in ("bhw", "bccw", "BTC", "b,t,c"):
        with pytest.raises(UsageError, match="one letter for each axis"):
            rows_of(model, x, layout=bad)


def test_images_in_bytes_have_channels_first() -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 5, 7, 3)).astype(np.uint8)
    inputs, model = inputs_of(images), Does(lambda m, x: x.clone())
    reading, _ = find_reading(model, model, lambda count: inputs.some(count, model), images=inputs.images)
    assert reading.layout == "bchw"


def test_data_and_places_in_one_axis_are_refused() -> None:
    windows = Does(lambda m, x: m.linear(x.reshape(-1, 3, 6)), linear=nn.Linear(6, 5))
    with pytest.raises(UsageError, match="one axis holds data and places together"):
        rows_of(windows, TOKENS, "linear")
    with pytest.raises(UsageError, match="expected one axis that is as long as the data are many"):
        rows_of(Does(lambda m, x: m.table(torch.arange(9)) + x, table=nn.Embedding(9, 6)), TOKENS, "table")
    with pytest.raises(UsageError, match="expected one axis"):
        rows_of(Does(lambda m, x: x.flatten(1) @ x.flatten(1).T), TOKENS)


def test_a_shared_layer_is_asked_for_its_run() -> None:
    model = Does(lambda m, x: m.linear(m.linear(x).tanh()), linear=nn.Linear(6, 6))
    with pytest.raises(UsageError, match=r"layer=linear: runs 2 times.*call=0 \.\. call=1"):
        rows_of(model, TOKENS[:, 0], "linear")
    reading, rows = rows_of(model, TOKENS[:, 0], "linear", call=1)
    assert reading.call == 1
    torch.testing.assert_close(rows, model(TOKENS[:, 0]).detach())
    with pytest.raises(UsageError, match="runs 2 times when the model reads the data; name another run than call=5"):
        rows_of(model, TOKENS[:, 0], "linear", call=5)
    with pytest.raises(UsageError, match="does not run when the model reads the data; name another layer: linear"):
        rows_of(Does(lambda m, x: x, linear=nn.Linear(1, 1)), TOKENS[:, 0], "linear")


def test_class_and_register_tokens_are_asked_for() -> None:
    def embed(m: Any, x: torch.Tensor) -> torch.Tensor:
        patches = m.conv(x).flatten(2).transpose(1, 2)
        return m.linear(
            torch.cat([m.cls_token.expand(len(x), 1, 6), m.register_tokens.expand(len(x), 2, 6), patches], 1)
        )

    model = Does(embed, **convolution())
    model.cls_token, model.register_tokens = nn.Parameter(drawn(1, 1, 6)), nn.Parameter(drawn(1, 2, 6, seed=1))
    h = model(IMAGES).detach()
    assert h.shape == (4, 9, 5)
    with pytest.raises(UsageError, match=r"gives 9 tokens; .* 3 before the patches; say tokens=patches \(the 6"):
        rows_of(model, IMAGES, "linear")
    wanted = {"patches": h[:, 3:].mean(1), "class": h[:, 0], "all": h.mean(1), 1: h[:, 1:].mean(1)}
    for tokens, value in wanted.items():
        torch.testing.assert_close(rows_of(model, IMAGES, "linear", tokens=tokens)[1], value)
    reading, rows = rows_of(model, IMAGES, "linear", tokens="patches", pooling="all")
    torch.testing.assert_close(rows, h[:, 3:].flatten(0, 1))
    assert reading.told("linear", h.shape) == "linear gives btc [b, 9, 5], a row for each of places 3 .. 8 of 9"
    _, rows = rows_of(model, IMAGES, "linear", tokens="patches", pooling="position", position=2)
    torch.testing.assert_close(rows, h[:, 5])
    torch.testing.assert_close(rows_of(model, IMAGES, "linear", pooling="position")[1], h[:, 0])
    with pytest.raises(UsageError, match="pooling=centre: the places of layer linear are one row of 9 tokens"):
        rows_of(model, IMAGES, "linear", tokens="patches", pooling="centre")
    with pytest.raises(UsageError, match="tokens=class: the model has no parameter named as a class token"):
        rows_of(nn.GRU(6, 5, batch_first=True), TOKENS, tokens="class")
    with pytest.raises(UsageError, match="no row of tokens"):
        rows_of(model, IMAGES, "conv", tokens="class")


def test_rows_do_not_depend_on_the_data_beside() -> None:
    mixed = nn.TransformerEncoderLayer(6, 2, 8)  # reads the data as if they were tokens
    normed = nn.BatchNorm1d(6, track_running_stats=False)
    for model, x in ((mixed, TOKENS), (normed, TOKENS[:, 0])):
        with pytest.raises(UsageError, match="depends on the data beside it in the batch"):
            rows_of(model, x, layout="btc" if x.ndim == 3 else None)
    with quiet(normed):
        inputs = inputs_of(SERIES)
        find_reading(normed, normed, lambda count: inputs.some(count, normed), batch=1)
    trained = nn.BatchNorm1d(6)
    rows_of(trained.train(), TOKENS[:, 0])
    assert trained.training and int(trained.num_batches_tracked) == 0


def test_a_layer_that_draws_numbers_is_told_of_and_global_state_stays() -> None:
    noisy = Does(lambda m, x: nn.functional.dropout(x))
    inputs, before = inputs_of(drawn(4, 50)), torch.random.get_rng_state()
    with quiet(noisy), pytest.warns(Notice, match="gives other numbers each time"):
        find_reading(noisy, noisy, lambda count: inputs.some(count, noisy))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_models_that_do_not_take_the_data() -> None:
    class Two(nn.Module):
        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return image

    with pytest.raises(UsageError, match=r"does not take data \[9, 6\] of float32: TypeError: .*mask.*a builder"):
        rows_of(Two(), TOKENS)
    with pytest.raises(UsageError, match=r"does not take data \[9, 6\]: .*|mat1 and mat2"):
        rows_of(nn.Linear(7, 2), TOKENS)
    with pytest.raises(UsageError, match="KeyError: 'weights'"):
        rows_of(Does(lambda m, x: {}["weights"]), TOKENS)
    with pytest.raises(UsageError, match=r"depends on|complex numbers"):
        rows_of(Does(lambda m, x: torch.fft.fft(x)), TOKENS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_data_come_in_the_dtype_of_the_weights(dtype: torch.dtype) -> None:
    model = nn.Linear(6, 3).to(dtype)
    _, rows = rows_of(model, TOKENS[:, 0])
    assert rows.dtype == dtype
    torch.testing.assert_close(rows, model(TOKENS[:, 0].to(dtype)).detach())


@settings(max_examples=30, deadline=None)
@given(order=st.permutations("bchwt"), kept=st.sets(st.sampled_from("hwt")), seed=st.integers(0, 99))
def test_layouts_go_back_and_forth(order: list[str], kept: set[str], seed: int) -> None:
    letters = "".join(letter for letter in order if letter in kept | {"b", "c"})
    sizes = dict(zip("bcthw", (2, 3, 4, 5, 6), strict=True))
    h = drawn(*(sizes[letter] for letter in letters), seed=seed)
    layout, shape = Layout(letters), h.shape
    spots = layout.spots(h)
    wanted = torch.einsum(f"{letters}->b{''.join(x for x in 'thw' if x in kept)}c", h).reshape(2, -1, 3)
    assert torch.equal(spots, wanted) and torch.equal(layout.back(spots, shape), h)
    for pooling in ("mean", "centre", "position", "all"):
        reading = Reading(letters, pooling=pooling)
        rows = reading.rows(h)
        torch.testing.assert_close(reading.rows(reading.changed(h, lambda old: old * 2 + 1)), rows * 2 + 1)
        assert torch.equal(Reading(**reading.as_dict()).rows(h), rows)


def test_tokens_behind_the_patches_are_left_out_too() -> None:
    def embed(m: Any, x: torch.Tensor) -> torch.Tensor:
        patches = m.conv(x).flatten(2).transpose(1, 2)
        before, behind = m.cls_token.expand(len(x), 1, 6), m.detection_tokens.expand(len(x), 2, 6)
        return m.linear(torch.cat([before, patches, behind], 1))

    model = Does(embed, **convolution())
    model.cls_token, model.detection_tokens = nn.Parameter(drawn(1, 1, 6)), nn.Parameter(drawn(1, 2, 6, seed=1))
    reading, rows = rows_of(model, IMAGES, "linear", tokens="patches")
    torch.testing.assert_close(rows, model(IMAGES)[:, 1:7].mean(1).detach())
    assert reading.told("linear", (4, 9, 5)).endswith("mean over places 1 .. 6 of 9")


def test_digits_that_are_lost_are_told() -> None:
    rows = drawn(50, 3).double()
    tell_rounding(rows * 10, "float32", "f")
    tell_rounding(rows.float() + 1e9, "float32", "f")
    rows[:, 1] += 1e7
    with pytest.warns(Notice, match="layer=f: 1 of 3 features differ .* float32 keeps less than two digits"):
        tell_rounding(rows, "float32", "f")
    with pytest.warns(Notice, match="3 of 3 features .* or store dtype=float32"):
        tell_rounding(drawn(50, 3) * 1e-6, "float16", "f")
