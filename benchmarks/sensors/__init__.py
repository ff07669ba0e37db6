"""Benchmark of decoding and projecting, against the plain ways of doing the same."""

import os

# "CPU time of one thread" holds for numpy's matrix products too; OpenBLAS reads this when numpy is loaded, which is after this.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
