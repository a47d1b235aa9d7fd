"""Which events teach and which are asked: named rules, each with a leak check that runs on every use.

``split(dataset, "leave-one-out")`` makes a ``Split``; ``check(split)`` proves it again at any time; ``save`` and
``load`` keep one on disk.
"""

from palate.data.split.cold import ColdItems, ColdUsers, CrossDomain
from palate.data.split.last_events import FewShot, LeaveOneOut
from palate.data.split.rules import RULES, Rule, apply, check, leave_one_out, rule_named, split
from palate.data.split.saved import load, save
from palate.data.split.temporal import Temporal

__all__ = [
    "RULES",
    "ColdItems",
    "ColdUsers",
    "CrossDomain",
    "FewShot",
    "LeaveOneOut",
    "Rule",
    "Temporal",
    "apply",
    "check",
    "leave_one_out",
    "load",
    "rule_named",
    "save",
    "split",
]
