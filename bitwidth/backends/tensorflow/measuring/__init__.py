"""What a model does with data: input moments, ranges, gradients, batch statistics, without leaving a trace in it.

Here belongs one module per question, and what they share. What is done with the answers belongs in `bitwidth.passes`.
"""
