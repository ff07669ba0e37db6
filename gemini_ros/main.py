"""Entry point of the executable ``gemini_fusion_node``."""

from __future__ import annotations

import sys

from gemini_core.runtimes.process_settings import prepare_process
from gemini_core.runtimes.programs import Signals

_HELP = """usage: gemini_fusion_node --ros-args [--params-file FILE] [-p NAME:=VALUE] [-r FROM:=TO] [--log-level LEVEL]

The fusion node, by itself; `ros2 launch gemini_ros fusion.launch.py` also sets what large messages need. docs/node.md has all
parameters, `ros2 param describe` tells each of them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; then publish what waits and leave. A second signal ends it at once.

    Gives exit code 0; 2 where ROS refuses the command line (a parameter file that is not there, a wrong remapping). A signal
    while the program is loaded, or one after which it does not end in time, ends it with 130 or 143 (``Signals``).
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] in (["--help"], ["-h"]):  # ROS takes any argument for the program's own, and would start the node
        sys.stdout.write(_HELP)
        return 0
    signals = Signals("gemini_fusion_node")  # before what takes seconds to import
    prepare_process()
    import rclpy  # noqa: PLC0415 - see above
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415 - see above

    from gemini_ros.node import FusionNode  # noqa: PLC0415 - it loads torch, which reads what was just set

    # rclpy's own handlers end the context, and then what waits could no longer be published
    try:
        rclpy.init(args=arguments, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    except RuntimeError as error:  # what all errors of rcl are
        sys.stderr.write(f"gemini_fusion_node: {error}\n")
        return 2
    node = FusionNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    signals.running()
    node.start()
    while not signals.stopping:
        # a timeout that varies would make rclpy forget whose turn it is, and the first topics would starve the others
        executor.spin_once(timeout_sec=0.1)
    node.stop()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
