"""Every query and the view it returns. Sent to the catalog over the bus, answered from its read model.

Each query takes `min_seq`: the result includes the log at least up to that sequence, or the error is Behind.
Lists are keyset pages: `cursor` is the opaque `next` of the previous page; none = from the start.
"""
