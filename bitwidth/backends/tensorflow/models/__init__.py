"""Models as objects: copied, described as plain data, built again from it, filled, and handed to their owner.

Here belongs what makes or checks a Keras model, untrusted configurations included. What a layer reads through while it
trains belongs in `constraints`.
"""
