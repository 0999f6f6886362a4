"""Klindt et al. 2023: interpretable features in networks and in brains, with the controls that the score needs."""
