"""The crossings: every learner, start, finder and encoder on every world; one file for each part of the study."""
