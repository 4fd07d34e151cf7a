"""What asv measures at every commit: kernels, losses, fleets, planning and boards, in time and memory.

A class a topic. ``setup`` makes the inputs and makes the call once, so that compiling is not timed; asv runs it again
before each sample, which is why inputs are kept. A benchmark that a commit is too old for raises NotImplementedError in
``setup``. Old commits run these files too: only the newest must have every name that is imported, and no import of the
project stands outside a function.

Inputs are append-only: one that changes breaks every history. What must change raises the ``version`` of its class.
Times are processor seconds of one thread.
"""
