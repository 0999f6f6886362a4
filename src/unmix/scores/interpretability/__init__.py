"""Interpretability of features over images: weights x similarity x contrast, with nulls and controls."""
