"""Start the fusion node on a robot, with the DDS profile and the malloc settings that large messages need.

ros2 launch gemini_ros fusion.launch.py params_file:=my_robot.yaml rgb_image:=/camera/color/image_raw

What is given on the command line wins over the parameter file, which wins over the node's own values. An image argument is the
base name of the topic: with topics.rgb.transport: compressed the node takes <rgb_image>/compressed.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from gemini_ros.dds import config_file, missing_settings
from gemini_ros.launching import NODE, TOPICS, check_params_file, overrides
from launch import LaunchContext, LaunchDescription

SWITCHES = {"use_sim_time": "take the time from /clock", "autostart": "configure and activate at start"}


def start(context: LaunchContext) -> list[LifecycleNode]:
    """The node, with what the arguments say."""
    params_file = LaunchConfiguration("params_file").perform(context)
    check_params_file(params_file)
    given = overrides({name: LaunchConfiguration(name).perform(context) for name in (*SWITCHES, *TOPICS)})
    node = LifecycleNode(
        package="gemini_ros",
        executable="gemini_fusion_node",
        name=NODE,
        namespace=LaunchConfiguration("namespace"),
        parameters=[params_file, *([given] if given else [])],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        additional_env=missing_settings(context.environment),
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the node. An empty argument is one that is not given."""
    arguments = [
        DeclareLaunchArgument(
            "params_file", default_value=str(config_file("fusion.yaml")), description="rig and options, YAML"
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its relative topics"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=f"true or false: {what}; empty: as the parameter file says")
        for name, what in SWITCHES.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=f"{parameter}; empty: as the parameter file says")
        for name, parameter in TOPICS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
