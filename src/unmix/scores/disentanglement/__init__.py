"""Disentanglement: how one code stands for one factor, on plain arrays of codes and true factors of known kinds."""
