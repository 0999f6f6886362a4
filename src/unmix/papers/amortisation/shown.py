"""How the numbers of the study are named and written in its tables."""

FORMATS = {
    "fit_flops": "si",
    "encode_flops": "si",
    "fit_seconds": ".1f",
    "l0": ".2f",
    "fvu": ".4f",
    "weight": "g",
    "dead": ".1%",
}
LABELS = {
    "method": "method",
    "encoder": "read by",
    "mcc": "code MCC",
    "dictionary_mcc": "dictionary MCC",
    "dictionary_mcc_chance": "chance",
    "dictionary_mcc_paper": "paper's score",
    "l0": "L0",
    "fvu": "FVU",
    "fit_flops": "training",
    "encode_flops": "a row",
    "fit_seconds": "training, s",
}
UNITS = {"fit_flops": "FLOPs", "encode_flops": "FLOPs"}
