"""The workload: messages, recipients and events as they occur, for every test, simulation and bench.

    from tests.workload import draw, draw_story
    shape = draw(random.Random(7), largest=2_000_000, most_recipients=20)
    shape.write(file, "alice@sim.example", ["bob@sim.example"], date=1_772_450_000.0)

`shapes.py` draws messages, `texts.py` makes their bytes, `stories.py` draws who writes to whom and what else happens,
`strategies.py` is the same for Hypothesis, `cutting.py` cuts bytes into pieces, `round_trips.py` seals and opens many
messages (`make soak`).
All of it follows from a `random.Random` that is handed in: the same seed gives the same bytes.
"""

from tests.workload.shapes import EDGES, LARGEST, MOST_RECIPIENTS, Ending, Head, Shape, draw
from tests.workload.stories import Event, Happening, Step, WrittenMessage, draw_story
from tests.workload.texts import BodyKind

__all__ = [
    "EDGES",
    "LARGEST",
    "MOST_RECIPIENTS",
    "BodyKind",
    "Ending",
    "Event",
    "Happening",
    "Head",
    "Shape",
    "Step",
    "WrittenMessage",
    "draw",
    "draw_story",
]
