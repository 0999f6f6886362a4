"""What is measured: one module for each task, with CONTENDERS from a name to a class of prepared work."""
