"""Tools around the live node that a ROS installation from PyPI lacks: play a bag, record topics, run the demo."""
