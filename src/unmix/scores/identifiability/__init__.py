"""Identifiability: how far a representation is the true latents up to a linear map, a rotation or a warp."""
