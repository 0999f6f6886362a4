"""Exact solutions of linear networks: one neuron, wide and deep layers, and where they end; numpy, float64."""
