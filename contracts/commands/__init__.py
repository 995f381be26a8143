"""Every command, one tagged union for each kind of aggregate. A command may be rejected; unknown fields are errors.

Ids of what a command creates are derived from the command's id, so a repeated command creates nothing twice.
"""
