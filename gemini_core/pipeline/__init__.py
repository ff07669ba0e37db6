"""The whole program: messages to frames, frames to perceptions."""
