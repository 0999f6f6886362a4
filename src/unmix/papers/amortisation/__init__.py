"""The amortisation gap (arXiv 2411.13117): one file for each part of the study."""
