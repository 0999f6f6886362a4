"""DIET: the number of each datum as its label, beside other objectives at equal compute."""
