"""Damaged messages by the hundred thousand through the intake: no crash, no hang, nothing read outside of a message."""
