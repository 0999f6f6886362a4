"""Floor 0: records, recipes, random streams, costs, statistics and safe writes."""
