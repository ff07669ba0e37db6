"""What the network costs: the plain form of the paper against ours, in every runtime (``make benchmark-model``)."""
