"""The whole program in two halves: messages to frames (``front``), frames to perceptions (``back``)."""
