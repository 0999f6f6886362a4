"""Learning regimes: exact solutions, initialisation, the empirical kernel and monitors of lazy and rich learning."""
