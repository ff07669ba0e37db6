"""Start the fusion node on a robot, with the DDS profile and the malloc settings that large messages need.

ros2 launch gemini_ros fusion.launch.py params_file:=my_robot.yaml rgb_image:=/camera/color/image_raw
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from gemini_ros.dds import config_file, settings
from launch import LaunchDescription

# launch argument -> the node's default topic, remapped to the argument's value
INPUTS = {
    "rgb_image": "rgb/image",
    "rgb_camera_info": "rgb/camera_info",
    "depth_image": "depth/image",
    "depth_camera_info": "depth/camera_info",
    "lidar_points": "lidar/points",
    "events": "events",
    "events_camera_info": "events/camera_info",
}


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the node."""
    arguments = [
        DeclareLaunchArgument(
            "params_file", default_value=str(config_file("fusion.yaml")), description="rig and options, YAML"
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its relative topics"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=topic, description=f"topic to take for {topic}")
        for name, topic in INPUTS.items()
    ]
    node = LifecycleNode(
        package="gemini_ros",
        executable="gemini_fusion_node",
        name="gemini_fusion",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
                "node.autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
            },
        ],
        remappings=[(topic, LaunchConfiguration(name)) for name, topic in INPUTS.items()],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        additional_env=settings(),
        output="screen",
    )
    return LaunchDescription([*arguments, node])
