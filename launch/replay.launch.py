"""Play a bag into the fusion node: ros2 launch gemini_ros replay.launch.py bag:=street rate:=0.5.

The node's own arguments (params_file, namespace, topics) are those of fusion.launch.py. In a namespace the bag's topics are
played into it: /rgb/image as /<namespace>/rgb/image; transforms stay.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from gemini_ros.dds import missing_settings
from launch import LaunchContext, LaunchDescription

FUSION = Path(__file__).with_name("fusion.launch.py")


def play(context: LaunchContext) -> list[Node]:
    """A player that begins once the node listens to the reference camera."""
    options = {name: LaunchConfiguration(name).perform(context) for name in ("rate", "wait_for", "wait_s", "namespace")}
    into = ["--into", options["namespace"]] if options["namespace"] else []
    waiting = ["--wait-for", options["wait_for"], "--wait-s", options["wait_s"]]
    player = Node(
        package="gemini_ros",
        executable="gemini_bag_play",
        arguments=[LaunchConfiguration("bag"), "--rate", options["rate"], "--restamp", *waiting, *into],
        additional_env=missing_settings(context.environment),
        output="screen",
    )
    return [player]


def generate_launch_description() -> LaunchDescription:
    """The node, and the player."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="bag folder or file to play"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed; 0.5 plays at half speed"),
            DeclareLaunchArgument(
                "wait_for", default_value="/rgb/image", description="start when this topic of the bag has a listener"
            ),
            DeclareLaunchArgument(
                "wait_s", default_value="300", description="seconds to wait for it; building an engine may take minutes"
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FUSION))),
            OpaqueFunction(function=play),
        ]
    )
