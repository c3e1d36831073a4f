"""Data-parallel training: several processes, one model, each with its part of every mini-batch.

`job` is the frame around the program, `DataParallel` joins the gradients. An existing MPI does the sending
(pip install 'nnsparse[mpi]'); without it, a program written so runs on one process.
"""

from nnsparse.distributed.agreement import RanksDifferError
from nnsparse.distributed.communicator import Alone, Communicator, world
from nnsparse.distributed.job import job, rank_0_first, share_cores
from nnsparse.distributed.parallel import DataParallel, Reduced
from nnsparse.distributed.report import Report
from nnsparse.distributed.threads import StoppedError, in_threads

__all__ = [
    "Alone",
    "Communicator",
    "DataParallel",
    "RanksDifferError",
    "Reduced",
    "Report",
    "StoppedError",
    "in_threads",
    "job",
    "rank_0_first",
    "share_cores",
    "world",
]
