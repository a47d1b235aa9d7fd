"""Which events teach and which are asked: named rules, each with a leak check that runs on every use.

``split(dataset, "leave-one-out")`` makes a ``Split``; ``check(split)`` proves it again at any time.
"""

from palate.data.split.rules import RULES, LeaveOneOut, check, leave_one_out, rule_named, split

__all__ = ["RULES", "LeaveOneOut", "check", "leave_one_out", "rule_named", "split"]
