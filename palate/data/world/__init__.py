"""The world: real classic books and films read by simulated readers, with planted truth. See ``docs/world.md``.

``world("small").dataset`` is what systems see; ``.truth`` what was planted; ``.covers(folder)`` draws the pictures.
"""

from palate.data.world.assemble import Truth, World, planted, world
from palate.data.world.dials import SIGNALS, VERSION, WorldConfig

__all__ = ["SIGNALS", "VERSION", "Truth", "World", "WorldConfig", "planted", "world"]
