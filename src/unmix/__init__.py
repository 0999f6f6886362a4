"""unmix: find the factors in a representation, and know how far to trust them."""
