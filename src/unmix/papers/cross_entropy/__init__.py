"""Cross-entropy inverts the data-generating process (arXiv 2410.21869): one file for each part of the study."""
