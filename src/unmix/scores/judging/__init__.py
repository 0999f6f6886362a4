"""Judges: what explains a feature in words and recognises it in contexts that it has not seen."""

from unmix.core.recipe import Table

JUDGES = Table(
    "judge",
    {
        "TokenJudge": "unmix.scores.judging.tokens:TokenJudge",
        "CommandJudge": "unmix.scores.judging.command:CommandJudge",
        "AlwaysYes": "unmix.scores.judging.controls:AlwaysYes",
        "Coin": "unmix.scores.judging.controls:Coin",
    },
    "unmix.scores.judging.base:Judge",
)
