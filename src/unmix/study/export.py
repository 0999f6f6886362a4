"""Codes and features as tables, written to CSV or Parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.store import replacing
from unmix.finders.features import Features


def codes_table(codes: Codes) -> pd.DataFrame:
    """One line for every active code: row, feature, value; sorted by row."""
    rows, columns, values = codes.nonzero()
    return pd.DataFrame({"row": rows.cpu(), "feature": columns.cpu(), "value": values.cpu()})


def feature_table(features: Features, codes: Codes) -> pd.DataFrame:
    """One line for every feature: feature, name, rate (share of rows), mean and maximum of its active codes, norm."""
    table = codes_table(codes)
    active = table.groupby("feature")["value"]
    frame = pd.DataFrame({"feature": range(codes.width)})
    frame["name"] = list(features.names) if features.names else [""] * codes.width
    frame["rate"] = frame["feature"].map(active.size()).fillna(0) / max(1, len(codes))
    frame["mean"] = frame["feature"].map(active.mean())
    frame["maximum"] = frame["feature"].map(active.max())
    frame["norm"] = features.atoms.norm(dim=1).cpu().numpy()
    return frame


def write_table(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as .csv or .parquet, whole or not at all; raises `UsageError` for another ending."""
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"{path}: write tables as .csv or .parquet")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise UsageError(f'{path}: Parquet needs pyarrow; pip install "unmix[parquet]"') from None
    with replacing(path) as part:
        frame.to_csv(part, index=False) if path.suffix == ".csv" else frame.to_parquet(part, index=False)
    return path
