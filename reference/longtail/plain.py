"""Losses that know nothing of the sizes of classes, as the ground for those that do."""

from reference.losses.ce import ce
from reference.losses.focal import focal
from reference.methods import long_tail_loss

long_tail_loss(id="ce")(ce)
long_tail_loss(id="focal", search={"gamma": (0.1, 5.0)})(focal)
