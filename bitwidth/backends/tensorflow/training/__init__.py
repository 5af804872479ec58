"""One run of training: what it is checked for, compiled with and steered by.

Here belongs what stands around Keras's `fit`. The constraints under which a model trains belong in `constraints`.
"""
