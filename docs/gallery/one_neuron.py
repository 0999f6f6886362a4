"""
Upstream, balanced, downstream
==============================

The flow of one neuron in closed form. The balance of its two layers is conserved; where it starts decides whether it
learns features at once, late, or through a change of sign.
"""

from unmix.report.regimes import beta_plane, hyperboloids

surfaces = hyperboloids()

# %%
# The same flows, seen as the function that the neuron computes.
functions = beta_plane()
