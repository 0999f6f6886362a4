"""Get rich quick (arXiv 2406.06158): one file for each part of the study."""
