"""GeminiFusion networks: tensors in, tensors out (device, precision and normalisation are the predictor's)."""
