"""SlowVAE (arXiv 2007.10930): one file for each part of the study."""
