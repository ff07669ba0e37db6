"""Benchmark of the network: the plain form of the paper against ours, in every runtime (``make benchmark-model``)."""
