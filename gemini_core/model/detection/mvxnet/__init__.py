"""MVX-Net, the detector of the paper."""
