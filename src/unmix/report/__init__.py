"""Report: one self-contained page with figures, tables and claims, readable without a script or a network."""
