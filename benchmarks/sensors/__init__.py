"""What decoding and projecting cost, against the plain ways of doing the same."""
