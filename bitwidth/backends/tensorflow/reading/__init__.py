"""From a Keras model to the framework-free graph: names, one trace, and what it says of every parameter.

Here belongs what looks at a model without changing it or computing with its values. What it computes on data belongs in
`measuring`, and how a model is copied, built or filled in `models`.
"""
