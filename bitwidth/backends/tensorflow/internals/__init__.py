"""What is known of TensorFlow and Keras beyond what they document: the one door to their private names.

Here belongs every name of theirs that begins with an underscore or lives in `keras.src` or `tensorflow.python`, behind
a function or a name that says what it does, with the oldest version since which that holds. What is done with it
belongs in the other rooms.
"""
