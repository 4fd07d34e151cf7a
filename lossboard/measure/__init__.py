"""What is known of an implementation before it is ranked: that it is right, how long it takes, in how much memory."""

from lossboard.measure.gate import gate
from lossboard.measure.memory import peak
from lossboard.measure.timing import interleaved

__all__ = ["gate", "interleaved", "peak"]
