"""Play a bag into the fusion node: ros2 launch gemini_ros replay.launch.py bag:=street rate:=0.5.

The node's own arguments (params_file, namespace, remappings) are those of fusion.launch.py.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from gemini_ros.dds import settings
from launch import LaunchDescription

FUSION = Path(__file__).with_name("fusion.launch.py")


def generate_launch_description() -> LaunchDescription:
    """The node, and a player that begins once the node listens to the reference camera."""
    player = Node(
        package="gemini_ros",
        executable="gemini_bag_play",
        arguments=[
            LaunchConfiguration("bag"),
            "--rate",
            LaunchConfiguration("rate"),
            "--restamp",
            "--wait-for",
            LaunchConfiguration("wait_for"),
        ],
        additional_env=settings(),
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="bag folder or file to play"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed; 0.5 plays at half speed"),
            DeclareLaunchArgument("wait_for", default_value="/rgb/image", description="start when this topic has a listener"),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FUSION))),
            player,
        ]
    )
