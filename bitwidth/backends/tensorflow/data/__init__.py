"""Data as users have it, as batches in a known order.

Here belongs what reads the forms that `model.fit` takes. What a model makes of a batch belongs in the other rooms.
"""
