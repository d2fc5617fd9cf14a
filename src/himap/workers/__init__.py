"""Several processes on one piece of work: started, watched, stopped together; here or through Slurm."""

from himap.workers.local import Command, Ended, run_workers
from himap.workers.signals import interruptible, tether

__all__ = ["Command", "Ended", "interruptible", "run_workers", "tether"]
