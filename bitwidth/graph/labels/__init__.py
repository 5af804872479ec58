"""Coupled channels: which units of a model can be removed together, read from its operations alone.

Here belongs what operations say about equal indices of axes (`rules`, one function for each kind of operation), and
what follows from it: groups of units, cuts, shapes after a cut. Which units to remove belongs in passes, and how a
framework's layers are built again in the backend.
"""

from bitwidth.graph.labels.coupling import Coupling, couple
from bitwidth.graph.labels.groups import Frozen, Group, Member
from bitwidth.graph.labels.removal import Removal

__all__ = ["Coupling", "Frozen", "Group", "Member", "Removal", "couple"]
