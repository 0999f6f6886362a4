"""What the promises of `unmix trust` are worth: one file for each part of the study."""
