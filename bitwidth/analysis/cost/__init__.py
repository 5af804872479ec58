"""Cost: what a model takes to run and to hold, counted from its operations and shapes alone.

Here belongs what can be counted; what takes time on a device has to be measured there.
"""

from bitwidth.analysis.cost.cost import Cost, LayerCost, cost_of

__all__ = ["Cost", "LayerCost", "cost_of"]
