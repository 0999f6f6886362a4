"""How the numbers of the study are named and written in its tables."""

FORMATS = {
    **dict.fromkeys(
        (
            "r2", "r2_minimum", "worst_direction", "r2_x", "r2_x_minimum", "r2_untrained", "procrustes_scaled",
            "weights_r2", "mcc", "published", "duality_ratio",
            "beta_ratio", "singular_values", "accuracy", "pixels", "untrained", "trained",
        ),
        ".3f",
    ),
    "within_class": ".4f",
    "excess_loss": ".3f",
    "seconds": ".0f",
    "p": ".1g",
}  # fmt: skip
LABELS = {
    "r2": "R2",
    "worst_direction": "worst direction",
    "r2_minimum": "worst",
    "r2_x": "R2 of x",
    "r2_x_minimum": "worst of x",
    "r2_untrained": "untrained",
    "procrustes_scaled": "R2, rotation",
    "weights_r2": "weights",
    "singular_values": "scale error",
    "beta_ratio": "beta / kappa",
    "duality_ratio": "duality / kappa",
    "within_class": "within classes",
    "excess_loss": "above Bayes",
    "mcc": "MCC",
    "row": "line",
    "seconds": "training, s",
}
