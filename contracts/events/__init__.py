"""All events. They are the disk format: type tags are spelled out, nothing is renamed or retyped, new fields have
defaults.

An event says what happened to one aggregate; its commit (`contracts.commits`) says when, by whom and why. Unknown
fields are ignored, because old and new code share one log. `Sealed` fields contain private text under the key of one
image (`contracts.sealed`). An `ImageSet` is a Roaring bitmap (https://roaringbitmap.org, portable format) in the event,
or in a blob where it is large.
"""
