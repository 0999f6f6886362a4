"""Which format a folder is in, and the two verbs of the command line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from unmix.core.errors import UsageError
from unmix.finders.features import Features
from unmix.interop import FORMATS, WRITERS
from unmix.interop.folder import WEIGHTS, format_of, read

from . import made
from .test_dictionary_learning import folder_of as dictionary_learning
from .test_sparsify import folder_of as sparsify

MAKE = {
    "saelens": lambda folder: made.saelens(folder, "topk"),
    "dictionary_learning": lambda folder: dictionary_learning(folder, "AutoEncoderTopK"),
    "sparsify": sparsify,
}


@pytest.fixture(scope="module")
def cli():
    from unmix.cli import app

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def test_every_format_has_a_reader_and_is_looked_for():
    assert set(FORMATS) == set(WEIGHTS) == set(MAKE)
    assert set(WRITERS) <= set(FORMATS)
    assert all(FORMATS[name].__doc__ for name in FORMATS)


@pytest.mark.parametrize("name", list(MAKE))
def test_the_format_is_found_by_itself(name, tmp_path):
    folder = MAKE[name](tmp_path / "sae")
    assert format_of(folder) == name
    assert read(folder).digest == read(folder, name).digest == FORMATS[name](folder).digest


def test_folders_that_are_none_or_several(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read(tmp_path / "nowhere")
    MAKE["sparsify"](tmp_path / "layers.3")
    with pytest.raises(UsageError, match=r"none of .*sae.safetensors is there; try its sub-folder layers\.3"):
        read(tmp_path)
    with pytest.raises(UsageError, match=r"is a file; name the folder that it is in, .*layers\.3$"):
        read(tmp_path / "layers.3" / "sae.safetensors")
    (tmp_path / "scope").mkdir()
    with pytest.raises(UsageError, match="is there; the folder is empty"):
        read(tmp_path / "scope")
    (tmp_path / "scope" / "README.md").write_text("a layout of their own")
    np.savez(tmp_path / "scope" / "params.npz", W_enc=np.zeros((2, 3)), W_dec=np.zeros((3, 2)), threshold=np.zeros(3))
    there = r"params.npz \(W_dec, W_enc, threshold\)"
    with pytest.raises(UsageError, match=rf"none of .* is there; it holds {there}; README.md"):
        read(tmp_path / "scope")
    with pytest.raises(UsageError, match=rf"is a file; name a folder that holds .*; this is {there}"):
        read(tmp_path / "scope" / "params.npz")
    held = r"sae.safetensors \(W_dec, b_dec, encoder.bias, encoder.weight\)"
    shutil.move(tmp_path / "layers.3" / "sae.safetensors", tmp_path / "mine.safetensors")
    with pytest.raises(UsageError, match=rf"this is {held.replace('sae', 'mine')}"):
        read(tmp_path / "mine.safetensors")
    both = MAKE["saelens"](tmp_path / "both")
    shutil.copy(MAKE["dictionary_learning"](tmp_path / "other") / "ae.pt", both)
    with pytest.raises(UsageError, match="saelens and dictionary_learning; say which"):
        read(both)
    assert read(both, "saelens").shape == (made.M, made.D)
    with pytest.raises(UsageError, match="did you mean saelens"):
        read(both, "sae_lens")


@pytest.mark.parametrize("name", list(MAKE))
def test_import_writes_a_features_folder(name, cli, tmp_path):
    folder = MAKE[name](tmp_path / "sae")
    done = cli("import", folder, "-o", tmp_path / "features")
    assert done.exit_code == 0, done.output
    assert "14 atoms of width 6, encoder TopK(k=3)" in done.output
    assert Features.load(tmp_path / "features").digest == read(folder).digest
    again = cli("import", folder, "-o", tmp_path / "features", "--format", name)
    assert again.exit_code == 0


def test_import_never_loses_files_and_passes_fields_over_when_told(cli, tmp_path):
    folder = sparsify(tmp_path / "sae", jump=1, note="x")
    assert "unknown fields jump, note" in str(cli("import", folder, "-o", tmp_path / "f").exception)
    assert cli("import", folder, "-o", tmp_path / "f", "--ignore", "jump,note").exit_code == 0
    refused = cli("import", folder, "-o", folder)
    assert isinstance(refused.exception, UsageError) and "holds other files" in str(refused.exception)
    assert (folder / "sae.safetensors").is_file()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import numpy as np

    from unmix.activations.data import Data
    from unmix.activations.transforms import Scale, Whiten
    from unmix.finders.linear import PCA
    from unmix.finders.topk_sae import TopKSAE
    from unmix.study import verbs

    folder = tmp_path_factory.mktemp("runs")
    rows = made.rows(300) @ made.draw(5, made.D, made.D) + 3
    np.save(folder / "h.npy", rows.numpy())
    finders = [TopKSAE(width=8, k=2, steps=30, batch=64), PCA(width=3)]
    verbs.fit(Data(path=str(folder / "h.npy")), finders, folder / "plain")
    changed = Data(path=str(folder / "h.npy"), transforms=(Whiten(), Scale()))
    verbs.fit(changed, finders[:1], folder / "changed")
    return folder, rows


def test_export_writes_what_saelens_loads(run, cli, tmp_path):
    folder, rows = run
    out = tmp_path / "sae"
    words = ("--to", "saelens", "-o", out, "--finder", "TopKSAE", "--model-name", "tiny", "--hook-name", "h.1")
    done = cli("export", folder / "plain", *words)
    assert done.exit_code == 0, done.exception
    assert json.loads((out / "cfg.json").read_text())["metadata"]["hook_name"] == "h.1"
    fitted = Features.load(next(fit for fit in (folder / "plain" / "fits").iterdir() if is_kind(fit, "TopK")))
    assert torch.equal(read(out).encode(rows).dense(), fitted.encode(rows).dense())


def test_export_folds_the_transforms_of_the_rows_away(run, cli, tmp_path):
    from unmix.study.study import Results
    from unmix.study.verbs import chosen

    folder, rows = run
    done = cli("export", folder / "changed", "--to", "saelens", "-o", tmp_path / "sae")
    assert done.exit_code == 0, done.exception
    _, fitted, seen, _ = chosen(Results(folder / "changed"))
    exported = read(tmp_path / "sae")
    whole = torch.cat(list(seen.blocks(1000)))
    assert not torch.allclose(whole, rows, atol=0.1)
    assert torch.allclose(exported.encode(rows).dense(), fitted.encode(whole).dense(), atol=1e-4)
    back = seen.rows.affine.inverse(seen.affine.inverse(fitted.reconstruct(whole)))
    assert torch.allclose(exported.reconstruct(rows), back, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "say what to write"),
        (("--to", "saelens"), "go together"),
        (("-o", "x", "--codes", "c.csv"), "go together"),
        (("--to", "saelen", "-o", "x"), "did you mean saelens"),
        (("--to", "saelens", "-o", "x", "--finder", "PCA"), r"Linear(rectify=False): its codes are signed"),
    ],
)
def test_export_says_what_is_wrong(words, sentence, run, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("export", run[0] / "plain", *words)
    assert isinstance(done.exception, UsageError) and sentence in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_formats_are_on_the_shelf():
    from unmix.shelf import listing, page

    assert "saelens" in listing("formats")
    assert "SAELens 6.54.12" in page("saelens")


def is_kind(folder, kind):
    return json.loads((folder / "features.json").read_text())["encoder"]["kind"] == kind
