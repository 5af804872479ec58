"""Encodings at work in a model: the functions through which layers read parameters and take inputs.

Here belongs what turns an encoding into TensorFlow operations and puts them into a model or takes them out. When they
change during training belongs in `training`.
"""
