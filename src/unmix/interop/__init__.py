"""Interop: features from and for other libraries; every mapping is exact or refused with a sentence."""

from unmix.core.recipe import Table

FORMATS = Table(
    "format",
    {
        "saelens": "unmix.interop.saelens:read_saelens",
        "dictionary_learning": "unmix.interop.dictionary_learning:read_dictionary_learning",
        "sparsify": "unmix.interop.sparsify:read_sparsify",
    },
)

WRITERS = Table("format", {"saelens": "unmix.interop.saelens:write_saelens"})
