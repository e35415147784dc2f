"""Measure training on several processes: `deepspeed --num_gpus N launch/bench.py step --config CONFIG`, or torchrun.

The same as `gfm bench`, which measures one process.
"""

from __future__ import annotations

import sys

from gfm_pipeline.cli.bench import bench
from gfm_pipeline.command_line import run

if __name__ == "__main__":
    # The deepspeed launcher puts --local_rank before the sub-command; the environment says the same.
    sys.argv = [word for word in sys.argv if not word.startswith("--local_rank")]
    run(bench, "bench")
