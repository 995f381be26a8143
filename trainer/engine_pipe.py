"""The pipe between trainer and engine process: the frames of each direction."""

from contracts.wire.system.pipe import Frames
from trainer.messages import EngineRequest, Update

MAX_REQUEST_BYTES = 256 * 2**20
"""Maximum size of a request: enough for a hundred thousand pictures with a page of caption each."""

MAX_UPDATE_BYTES = 2**20
"""Maximum size of an update."""

REQUESTS: Frames[EngineRequest] = Frames(EngineRequest, MAX_REQUEST_BYTES)
UPDATES: Frames[Update] = Frames(Update, MAX_UPDATE_BYTES)
