"""Engines: what runs the jobs of a study; in this process, in several, or on the machines of a cluster."""

from unmix.study.engines.base import Engine, Lost, Pooled
from unmix.study.engines.local import Processes, Serial

__all__ = ["Engine", "Lost", "Pooled", "Processes", "Serial"]
